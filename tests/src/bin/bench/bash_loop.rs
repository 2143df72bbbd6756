//! The tutorial's sidekick: a loop in bash around curl and etcdctl. Repaired, as its
//! `[$? -eq 0]` never registers anything, and quiet; otherwise as printed.

use tests::process::{Process, Spec};
use tests::{Backend, Etcd, Lab};

const LOOP: &str = r#"
while true; do
  curl -f -s -o /dev/null ${HOST}:${PORT};
  if [ $? -eq 0 ]; then
    etcdctl --endpoints ${ETCD} set /services/apache/${HOST} "${HOST}:${PORT}" --ttl 30 > /dev/null;
  else
    etcdctl --endpoints ${ETCD} rm /services/apache/${HOST} > /dev/null;
  fi;
  sleep 20;
done
"#;

/// Starts it for one backend. It speaks v2, as it did.
pub(crate) fn start(lab: &Lab, etcd: &Etcd, backend: &Backend) -> Process {
    let spec = Spec::new("bash loop", "bash", lab.path())
        .args(["-c", LOOP])
        .env("ETCDCTL_API", "2")
        .env("ETCD", etcd.url())
        .env("HOST", backend.ip().to_string())
        .env("PORT", backend.port().to_string());
    lab.spawn(spec)
}
