//! A reload counts only when workers prove it.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};

use confsync::proxy::command::Supervised;
use confsync::proxy::nginx::{
    NginxMaster, NginxMasterError, NginxReloadError, PidFileError, Role, StartError, is_alive,
    old_generations,
};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::bench::{Bench, DEADLINE, free_port, get, version};

async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_good_reload_is_applied_and_later_quiesced() {
    let backend = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = backend.local_addr().unwrap().port();
    let bench = Bench::with_backend(port).await.start().await;
    let slow = tokio::spawn(get(bench.port, "/slow"));
    // The old worker has the request once the backend has it.
    let (mut held, _) = backend.accept().await.unwrap();
    let installed = bench.install(&[("sites/version.conf", &version(2))]).await;
    let old = bench.reload().await.unwrap();
    assert_eq!(old.len(), 2);
    assert_eq!(bench.ask().await, "v2");
    let left = || old.iter().filter(|worker| is_alive(**worker)).count();
    timeout(DEADLINE, until(|| left() == 1)).await.unwrap();
    let mut request = [0; 1024];
    let _ = held.read(&mut request).await.unwrap();
    held.write_all(b"HTTP/1.0 200 OK\r\n\r\nold and well").await.unwrap();
    drop(held);
    assert_eq!(slow.await.unwrap(), "old and well");
    timeout(DEADLINE, until(|| left() == 0)).await.unwrap();
    installed.commit().unwrap();
    assert!(bench.leftovers().is_empty(), "{:?}", bench.leftovers());
}

#[tokio::test]
async fn a_port_in_use_passes_the_check_and_is_found_all_the_same() {
    let bench = Bench::serving().await;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let text = format!("server {{ listen 127.0.0.1:{port}; }}\n");
    let text = [version(2).as_slice(), text.as_bytes()].concat();
    let installed = bench.install(&[("sites/version.conf", &text)]).await;
    let error = bench.reload().await.unwrap_err();
    let NginxReloadError::Rejected(words) = &error else { panic!("{error}") };
    assert!(words.contains("still could not bind()"), "{words}");
    assert!(words.contains(&format!("127.0.0.1:{port} failed (98")), "{words}");
    assert_eq!(bench.ask().await, "v1");
    installed.rollback().unwrap();
    assert_eq!(fs::read(bench.path("sites/version.conf")).unwrap(), version(1));
    bench.reload().await.unwrap();
    assert_eq!(bench.ask().await, "v1");
}

#[tokio::test]
async fn what_only_the_running_master_can_refuse_is_found_at_once() {
    let bench = Bench::new().await;
    let zone = |key: &str| {
        let zone = format!("limit_req_zone {key} zone=q:1m rate=9r/s;\n");
        [version(1).as_slice(), zone.as_bytes()].concat()
    };
    fs::write(bench.path("sites/version.conf"), zone("$uri")).unwrap();
    let bench = bench.start().await;
    let installed = bench.install(&[("sites/version.conf", &zone("$arg_x"))]).await;
    let error = bench.reload().await.unwrap_err();
    let NginxReloadError::Rejected(words) = &error else { panic!("{error}") };
    assert!(words.contains("uses the \"$arg_x\" key while previously"), "{words}");
    installed.rollback().unwrap();
    bench.reload().await.unwrap();
}

/// The reload itself as the check: no `nginx -t` before it.
#[tokio::test]
async fn an_unchecked_file_is_rejected_with_the_masters_message() {
    let bench = Bench::serving().await;
    let dest = bench.path("sites/version.conf");
    fs::write(&dest, "\noops;").unwrap();
    let error = bench.reload().await.unwrap_err();
    let NginxReloadError::Rejected(words) = &error else { panic!("{error}") };
    assert_eq!(words, &format!("[emerg] unknown directive \"oops\" in {}:2", dest.display()));
    // Without a log that can be read, a test of the files shows as much.
    let conf = fs::read_to_string(bench.path("nginx.conf")).unwrap();
    fs::write(bench.path("nginx.conf"), conf.replace("error_log error.log", "error_log stderr"))
        .unwrap();
    let error = bench.reload().await.unwrap_err().to_string();
    assert!(error.contains("unknown directive \"oops\"") && error.ends_with(":2"), "{error}");
}

#[tokio::test]
async fn applied_means_the_newest_file_though_others_reload_too() {
    let bench = Bench::serving().await;
    let master = bench.nginx.master().unwrap();
    for n in 2..20 {
        let noise = n % 3;
        for _ in 0..noise {
            master.signal(Signal::HUP).unwrap();
        }
        let set = bench.install(&[("sites/version.conf", &version(n))]).await;
        if n % 2 == 0 {
            master.signal(Signal::HUP).unwrap();
        }
        bench.reload().await.unwrap();
        assert_eq!(bench.ask().await, format!("v{n}"));
        set.commit().unwrap();
    }
}

#[tokio::test]
async fn a_worker_that_crashes_is_no_new_generation() {
    let bench = Bench::serving().await;
    let master = bench.nginx.master().unwrap();
    for worker in master.workers(&[]).unwrap() {
        fs::write(bench.path("sites/version.conf"), "oops;").unwrap();
        let pid = rustix::process::Pid::from_raw(worker.id.pid).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
        let error = bench.reload().await.unwrap_err();
        assert!(matches!(error, NginxReloadError::Rejected(_)), "{error}");
    }
    fs::write(bench.path("sites/version.conf"), version(3)).unwrap();
    bench.reload().await.unwrap();
    assert_eq!(bench.ask().await, "v3");
}

/// Neither `nginx -t` nor the master can know: only the new workers can.
#[tokio::test]
async fn workers_that_cannot_work_are_recognised_and_replaced() {
    let bench = Bench::serving().await;
    let old = fs::read_to_string(bench.path("nginx.conf")).unwrap();
    let new = format!("working_directory /no-such-folder;\n{old}");
    let set = bench.install(&[("nginx.conf", new.as_bytes())]).await;
    let error = bench.reload().await.unwrap_err();
    let NginxReloadError::NoWorkers(words) = &error else { panic!("{error}") };
    assert!(words.contains("chdir(\"/no-such-folder\") failed"), "{words}");
    set.rollback().unwrap();
    bench.reload().await.unwrap();
    assert_eq!(bench.ask().await, "v1");
}

#[tokio::test]
async fn old_generations_are_counted() {
    let backend = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = backend.local_addr().unwrap().port();
    let bench = Bench::with_backend(port).await.start().await;
    let mut held = Vec::new();
    for generation in 1..=3 {
        let request = tokio::spawn(get(bench.port, "/slow"));
        held.push((backend.accept().await.unwrap(), request));
        // Of the workers that are shutting down, only those with a request stay.
        bench.reload().await.unwrap();
        let workers = bench.nginx.master().unwrap().workers(&[]).unwrap();
        // The first may follow the start too closely to be distinguished from the second.
        assert!(old_generations(&workers) + 1 >= generation, "{workers:?}");
    }
    let master = bench.nginx.master().unwrap();
    let old = master.workers(&[]).unwrap();
    assert!(old.iter().filter(|w| w.role == Role::ShuttingDown).count() >= 3);
    for (_, request) in held {
        request.abort();
    }
}

#[tokio::test]
async fn no_signal_goes_to_a_stranger() {
    let bench = Bench::new().await;
    let file = bench.path("nginx.pid");
    let master = || bench.nginx.master().unwrap_err();
    assert!(
        matches!(master(), NginxMasterError::PidFile(PidFileError::Missing(path)) if path == file)
    );
    fs::write(&file, "").unwrap();
    assert!(matches!(master(), NginxMasterError::PidFile(PidFileError::NotANumber { .. })));
    for nonsense in ["0\n", "-1\n", "x", "99999999999"] {
        fs::write(&file, nonsense).unwrap();
        assert!(
            matches!(master(), NginxMasterError::PidFile(PidFileError::NotANumber { .. })),
            "{nonsense}"
        );
    }
    let mut stranger = Supervised::start(&["sleep".into(), "60".into()]).unwrap();
    let pid = stranger.pid().unwrap();
    fs::write(&file, format!("{}\n", pid.as_raw_nonzero())).unwrap();
    // Between its fork and its exec it has no command line.
    timeout(DEADLINE, async {
        while !master().to_string().contains("`sleep 60`, not an nginx master") {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{}", master()));
    stranger.stop(Signal::TERM, DEADLINE).await.unwrap();
    assert!(matches!(master(), NginxMasterError::NotRunning(_)));
}

#[tokio::test]
async fn a_master_that_ends_is_its_own_error() {
    let mut bench = Bench::serving().await;
    let master = bench.nginx.master().unwrap();
    let left = bench.child().stop(Signal::QUIT, DEADLINE).await.unwrap();
    assert_eq!(left.code(), 0);
    assert!(!master.is_alive());
    let error = bench.nginx.reload(&master, DEADLINE).await.unwrap_err();
    assert!(matches!(error, NginxReloadError::Master(NginxMasterError::NotRunning(_))), "{error}");
    assert!(matches!(
        NginxMaster::from_pid(rustix::process::Pid::from_raw(master.id().pid).unwrap()),
        Err(NginxMasterError::NotRunning(_))
    ));
}

#[tokio::test]
async fn a_start_that_fails_says_why() {
    let bench = Bench::new().await;
    fs::write(bench.path("sites/version.conf"), "oops;").unwrap();
    let mut child = Supervised::start(&bench.argv()).unwrap();
    let error = bench.nginx.started(&mut child, DEADLINE).await.unwrap_err();
    let StartError::Left { left, messages } = &error else { panic!("{error}") };
    assert_eq!(left.code(), 1);
    assert!(messages.contains("unknown directive \"oops\""), "{messages}");

    // Its port is taken: five tries, then it gives up.
    fs::write(bench.path("sites/version.conf"), version(1)).unwrap();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, bench.port)).unwrap();
    let mut child = Supervised::start(&bench.argv()).unwrap();
    let error = bench.nginx.started(&mut child, DEADLINE).await.unwrap_err();
    assert!(error.to_string().contains("still could not bind()"), "{error}");
    drop(taken);
    let _ = free_port();
    let left = child.wait().await.unwrap();
    assert_eq!(left.code(), 1);
}

#[tokio::test]
async fn an_nginx_in_the_background_is_recognised() {
    let bench = Bench::new().await;
    let argv: Vec<_> = bench.argv().into_iter().take(5).collect();
    let mut child = Supervised::start(&argv).unwrap();
    let started = bench.nginx.started(&mut child, DEADLINE).await;
    // It may be seen serving in the moment before it forks away; not so with the
    // master gone, which the caller learns by waiting for the child.
    if let Err(error) = started {
        assert!(error.to_string().contains("daemon off"), "{error}");
    }
    // The one in the background is known by its pid file, and goes on request.
    let stop = async {
        loop {
            if let Ok(master) = bench.nginx.master() {
                return master;
            }
            tokio::task::yield_now().await;
        }
    };
    let master = tokio::time::timeout(DEADLINE, stop).await.unwrap();
    bench.nginx.reload(&master, DEADLINE).await.unwrap();
    master.signal(Signal::TERM).unwrap();
}
