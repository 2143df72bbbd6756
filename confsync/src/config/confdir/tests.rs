use super::*;
use crate::backends::Values;
use crate::backends::loss_policy::OnEmpty;
use crate::template::Engine;
use std::time::Duration;

struct Folder(tempfile::TempDir);

impl Folder {
    fn with(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Self(folder)
    }

    fn load(&self) -> Result<Confdir, ConfdirError> {
        let (confdir, mistakes) = read(self.0.path(), &Globals::default())?;
        if mistakes.is_empty() { Ok(confdir) } else { Err(ConfdirError(mistakes)) }
    }
}

const TUTORIAL: &str = r#"
[template]
src = "nginx.tmpl"
dest = "/etc/nginx/sites-enabled/app.conf"
keys = ["/services/apache"]
owner = "root"
mode = "0644"
check_cmd = "/usr/sbin/nginx -t"
reload_cmd = "/usr/sbin/service nginx reload"
"#;

#[test]
fn the_tutorials_resource_is_read_as_it_is() {
    let folder = Folder::with(&[("conf.d/nginx.toml", TUTORIAL), ("templates/nginx.tmpl", "x")]);
    let confdir = folder.load().unwrap();
    let resource = &confdir.resources[0];
    assert_eq!(
        (resource.name.as_str(), resource.target.mode, resource.target.uid),
        ("nginx", Some(0o644), Some(0))
    );
    assert_eq!(resource.reading.trees, ["/services/apache".parse().unwrap()]);
    assert_eq!(resource.reading.values, Values::Any, "byte for byte as confd");
    assert!(confdir.notes.iter().any(|n| n.text.contains("does not look at the candidate")));
}

#[test]
fn an_nginx_table_makes_values_typed_and_has_defaults() {
    let toml = "[template]\nsrc=\"a.hbs\"\ndest=\"/a\"\nkeys=[\"/services/a\"]\n[nginx]\npid_file=\"/p\"\n";
    let folder = Folder::with(&[("conf.d/a.toml", toml), ("templates/a.hbs", "x")]);
    let confdir = folder.load().unwrap();
    let resource = &confdir.resources[0];
    assert_eq!(resource.engine, Engine::Handlebars);
    assert_eq!(resource.reading.values, Values::Typed);
    let nginx = resource.nginx.as_ref().unwrap();
    assert_eq!(
        (nginx.pid_file.as_deref(), nginx.binary.as_path()),
        (Some(Path::new("/p")), Path::new("nginx"))
    );
    assert_eq!(resource.policy.on_empty, OnEmpty::Keep);
    assert_eq!(resource.min_reload_interval, Duration::from_millis(500));
}

#[test]
fn a_haproxy_table_takes_one_path_or_more() {
    let toml = |conf: &str| {
        format!("[template]\nsrc=\"t\"\ndest=\"/d\"\nkeys=[\"/a\"]\n[haproxy]\n{conf}\n")
    };
    let read = |conf: &str| {
        let folder = Folder::with(&[("conf.d/a.toml", &toml(conf)), ("templates/t", "")]);
        folder.load().map(|confdir| {
            let resource = &confdir.resources[0];
            assert_eq!(resource.reading.values, Values::Typed);
            resource.haproxy.clone().unwrap().conf
        })
    };
    assert_eq!(read("").unwrap(), [Path::new("/etc/haproxy/haproxy.cfg")]);
    assert_eq!(read("conf = \"/a\"").unwrap(), [Path::new("/a")]);
    assert_eq!(read("conf = [\"/a\", \"/b\"]").unwrap(), [Path::new("/a"), Path::new("/b")]);
    for wrong in ["conf = []", "conf = [1]", "conf = \"\"", "live = \"lua\"", "[nginx]"] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn with_nginx_as_our_child_a_resource_without_commands_is_its() {
    let toml = "[template]\nsrc=\"t\"\ndest=\"/d\"\n";
    let folder = Folder::with(&[("conf.d/a.toml", toml), ("templates/t", "")]);
    assert_eq!(folder.load().unwrap().resources[0].nginx, None);
    let globals = Globals { nginx_is_our_child: true, ..Globals::default() };
    let (confdir, _) = read(folder.0.path(), &globals).unwrap();
    assert!(confdir.resources[0].nginx.is_some());
}

#[test]
fn every_mistake_of_every_file_is_reported_at_once() {
    let folder = Folder::with(&[
        ("conf.d/a.toml", "[template]\nsrc=\"missing.tmpl\"\nmode=\"rw\"\nvalues=\"all\"\n"),
        ("conf.d/b.toml", "[template\n"),
        (
            "conf.d/sub/c.toml",
            "[template]\nsrc=\"t\"\ndest=\"/tmp\"\ndebounce=\"soon\"\n[backend]\nbackend=\"consul\"\n",
        ),
        ("templates/t", ""),
    ]);
    let text = folder.load().unwrap_err().to_string();
    for part in [
        "missing.tmpl",
        "`dest` is missing",
        "octal",
        "values",
        "line 1",
        "is a folder",
        "soon",
        "consul",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn a_misspelt_key_is_reported_beside_the_mistakes() {
    let toml = "[template]\nsrc=\"t\"\nreload_cmnd=\"x\"\n";
    let folder = Folder::with(&[("conf.d/a.toml", toml), ("templates/t", "")]);
    let (confdir, mistakes) = super::read(folder.0.path(), &Globals::default()).unwrap();
    assert!(confdir.resources.is_empty() && mistakes[0].text.contains("`dest` is missing"));
    assert!(confdir.notes.iter().any(|note| note.ignored && note.text.contains("reload_cmnd")));
}

#[test]
fn a_relative_dest_is_taken_from_the_working_directory() {
    let toml = "[template]\nsrc=\"t\"\ndest=\"rel/x\"\n";
    let folder = Folder::with(&[("conf.d/a.toml", toml), ("templates/t", "")]);
    let confdir = folder.load().unwrap();
    assert_eq!(confdir.resources[0].target.dest, std::env::current_dir().unwrap().join("rel/x"));
    assert!(confdir.notes.iter().any(|note| !note.ignored && note.text.contains("rel/x")));
}

#[test]
fn a_mistake_with_a_place_is_one_that_editors_follow() {
    let message = |text: &str| ConfdirMistake { file: "t".into(), text: text.into() }.to_string();
    assert_eq!(message("2:1: no"), "t:2:1: no");
    assert_eq!(message("no"), "t: no");
}

#[test]
fn a_guard_table_is_another_place_for_its_keys() {
    let toml = "[template]\nsrc=\"t\"\ndest=\"/d\"\n[guard]\non_empty=\"render\"\nmin_backends=2\nmax_loss=0.9\n";
    let folder = Folder::with(&[("conf.d/a.toml", toml), ("templates/t", "")]);
    let policy = folder.load().unwrap().resources[0].policy.clone();
    assert_eq!((policy.on_empty, policy.min_backends), (OnEmpty::Render, 2));
}

#[test]
fn one_dest_has_one_writer() {
    let toml = "[template]\nsrc=\"t\"\ndest=\"/d\"\n";
    let folder =
        Folder::with(&[("conf.d/a.toml", toml), ("conf.d/b.toml", toml), ("templates/t", "")]);
    assert!(folder.load().unwrap_err().to_string().contains("as well"));
}

#[test]
fn an_empty_confdir_names_init() {
    let folder = Folder::with(&[]);
    assert!(folder.load().unwrap_err().to_string().contains("confsync init"));
}

#[test]
fn the_default_services_folder_parses() {
    assert_eq!(Globals::default().services.as_str(), "/services");
}

/// The one resource of a confdir with these lines in its `[template]`, and the messages about it.
fn with(lines: &str) -> (Resource, Vec<String>) {
    let toml = format!("[template]\nsrc=\"t\"\ndest=\"/d\"\n{lines}");
    let folder = Folder::with(&[("conf.d/a.toml", &toml), ("templates/t", "")]);
    let mut confdir = folder.load().unwrap();
    let message = confdir.notes.iter().map(|note| format!("{} {}", note.ignored, note.text));
    (confdir.resources.remove(0), message.collect())
}

#[test]
fn keys_are_joined_to_the_prefix_and_cleaned_as_confd_does_it() {
    for (lines, trees, prefix, message) in [
        ("keys=[\"/\"]", "/", "/", ""),
        ("keys=[\"\"]", "/", "/", ""),
        ("keys=[\"/app/\"]\nprefix=\"/\"", "/app", "/", ""),
        ("keys=[\"app\"]\nprefix=\"own/\"", "/own/app", "/own", ""),
        ("keys=[\"/\"]\nprefix=\"//own\"", "/own", "/own", ""),
        ("keys=[\"../b\"]\nprefix=\"/a\"", "/b", "/a", "true keys = \"../b\" is read as /b"),
        ("keys=[\"/a//b/./c\"]", "/a/b/c", "/", "is read as /a/b/c"),
        ("keys=[\"x\"]\nprefix=\"/a/../b\"", "/b/x", "/", "is read as /b/x"),
        ("keys=[\"/app/*\"]", "/app/*", "/", "a `*` is no pattern here"),
        ("keys=[\"/app/*/x\"]", "/app/*/x", "/", "are read with keys = \"/app\""),
        ("keys=[\"/app/web[12]\"]", "/app/web[12]", "/", "a `[` is no pattern here"),
    ] {
        let (resource, notes) = with(lines);
        let read: Vec<_> = resource.reading.trees.iter().map(ToString::to_string).collect();
        assert_eq!(read, [trees], "{lines}");
        assert_eq!(resource.reading.prefix.as_str(), prefix, "{lines}");
        let says = |note: &String| note.contains(message);
        let as_it_is = message.is_empty() && notes.is_empty();
        assert!(as_it_is || notes.iter().any(says), "{lines}: {notes:?}");
    }
}

#[test]
fn src_is_looked_for_below_templates_first() {
    let folder = Folder::with(&[
        ("conf.d/a.toml", "[template]\nsrc=\"/t\"\ndest=\"/d\"\n"),
        ("templates/t", ""),
    ]);
    let src = folder.load().unwrap().resources.remove(0).src;
    assert_eq!(src, folder.0.path().join("templates/t"));

    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    let toml = format!("[template]\nsrc=\"{}\"\ndest=\"/d\"\n", elsewhere.path().display());
    let folder = Folder::with(&[("conf.d/a.toml", &toml)]);
    assert_eq!(folder.load().unwrap().resources.remove(0).src, elsewhere.path());
}

#[test]
fn an_owner_that_does_not_exist_is_a_mistake_only_where_the_resource_is_ours() {
    let lines = "owner=\"nobody-has-this-name\"\ngroup=\"nor-this\"\n";
    let (resource, notes) = with(lines);
    assert_eq!((resource.target.uid, resource.target.gid), (None, None));
    assert_eq!(notes.iter().filter(|note| note.starts_with("true owner = ")).count(), 1);
    assert_eq!(notes.iter().filter(|note| note.starts_with("true group = ")).count(), 1);
    for own in ["[nginx]\n", "[guard]\nmax_loss=0.5\n"] {
        let toml = format!("[template]\nsrc=\"t\"\ndest=\"/d\"\n{lines}{own}");
        let folder = Folder::with(&[("conf.d/a.toml", &toml), ("templates/t", "")]);
        let error = folder.load().unwrap_err().to_string();
        assert!(error.contains("nobody-has-this-name") && error.contains("nor-this"), "{error}");
    }
}

#[test]
fn intended_differences_from_confd_are_reported() {
    let (resource, notes) = with("mode=\"600\"\n");
    assert_eq!(resource.target.mode, Some(0o600));
    assert!(notes[0].starts_with("false mode = \"600\" is read as octal, 0600"), "{notes:?}");
    assert!(with("mode=\"0600\"\n").1.iter().all(|note| !note.contains("mode")));
    let (resource, notes) = with("PREFIX=\"/a\"\nprefix=\"/b\"\n");
    assert_eq!(resource.reading.prefix.as_str(), "/b");
    assert!(notes.iter().any(|note| note.contains("`prefix` is given twice")), "{notes:?}");
}

#[test]
fn a_mode_is_read_in_the_base_that_its_prefix_names() {
    let mode = |text: &str| with(&format!("mode=\"{text}\"\n")).0.target.mode;
    for (text, want) in
        [("0640", 0o640), ("0o640", 0o640), ("0x1A0", 0o640), ("0b110100000", 0o640)]
    {
        assert_eq!(mode(text), Some(want), "{text}");
    }
    assert_eq!(mode(""), None);
}

#[test]
fn a_timeout_of_zero_is_no_limit() {
    let timeout = |lines: &str| with(lines).0.check.unwrap().timeout;
    let day = Duration::from_secs(24 * 60 * 60);
    assert_eq!(timeout("check_cmd=\"x {{src}}\"\ncheck_cmd_timeout=\"0s\"\n"), day);
    assert_eq!(timeout("check_cmd=\"x {{src}}\"\ncheck_cmd_timeout=0\n"), day);
    assert_eq!(timeout("check_cmd=\"x {{src}}\"\n"), Duration::from_secs(30));
}

#[test]
fn a_check_that_is_no_template_is_a_mistake() {
    let toml = "[template]\nsrc=\"t\"\ndest=\"/d\"\ncheck_cmd=\"x {{nope .src}}\"\n";
    let folder = Folder::with(&[("conf.d/a.toml", toml), ("templates/t", "")]);
    let error = folder.load().unwrap_err().to_string();
    assert!(error.contains("check_cmd is no template: column 5: function \"nope\""), "{error}");
}

/// A ConfigMap as it is mounted, an editor's file, git, a link back, a second name.
#[test]
fn a_file_is_one_resource_whatever_leads_to_it() {
    let toml = |name: &str| {
        format!("[template]\nsrc = \"t\"\ndest = \"/nowhere/{name}\"\nkeys = [\"/a\"]\n")
    };
    let (app, shop, blog, top) = (toml("app"), toml("shop"), toml("blog"), toml("top"));
    let folder = Folder::with(&[
        ("conf.d/..2026_01_02/app.toml", &app),
        ("conf.d/.git/old.toml", "not read"),
        ("conf.d/.#proxy.toml", "not read"),
        ("conf.d/shop/proxy.toml", &shop),
        ("conf.d/blog/proxy.toml", &blog),
        ("conf.d/proxy.toml", &top),
        ("templates/t", "x"),
    ]);
    let conf_d = folder.0.path().join("conf.d");
    for (to, name) in [
        ("..2026_01_02", "..data"),
        ("..data/app.toml", "app.toml"),
        ("app.toml", "z-another-name.toml"),
        ("..", "shop/back"),
    ] {
        std::os::unix::fs::symlink(to, conf_d.join(name)).unwrap();
    }
    let confdir = folder.load().unwrap();
    let mut found: Vec<_> =
        confdir.resources.iter().map(|r| (r.name.clone(), r.target.dest.clone())).collect();
    found.sort_unstable();
    let wanted = [("app", "app"), ("blog-proxy", "blog"), ("proxy", "top"), ("shop-proxy", "shop")];
    let dest = |name: &str| PathBuf::from("/nowhere").join(name);
    assert_eq!(found, wanted.map(|(name, to)| (name.to_owned(), dest(to))));
}

#[test]
fn one_dest_by_two_names_is_a_mistake() {
    let folder = Folder::with(&[("templates/t", "x"), ("out/enabled/readme", "")]);
    let root = folder.0.path();
    std::os::unix::fs::symlink("../app.conf", root.join("out/enabled/app.conf")).unwrap();
    std::fs::create_dir_all(root.join("conf.d")).unwrap();
    for (name, dest) in [("a", "out/app.conf"), ("b", "out/enabled/app.conf")] {
        let dest = root.join(dest);
        let text = format!("[template]\nsrc = \"t\"\ndest = \"{}\"\n", dest.display());
        std::fs::write(root.join(format!("conf.d/{name}.toml")), text).unwrap();
    }
    let error = folder.load().unwrap_err().to_string();
    assert!(error.contains("is written by") && error.contains("a.toml"), "{error}");
}

#[test]
fn a_pipe_among_the_files_is_named_and_not_waited_for() {
    let folder = Folder::with(&[("conf.d/a.toml", TUTORIAL), ("templates/nginx.tmpl", "x")]);
    let pipe = folder.0.path().join("conf.d/pipe.toml");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let (confdir, mistakes) = read(folder.0.path(), &Globals::default()).unwrap();
    assert_eq!(confdir.resources.len(), 1);
    assert_eq!(mistakes.iter().map(|wrong| wrong.file.clone()).collect::<Vec<_>>(), [pipe]);
    assert!(mistakes[0].text.contains("pipe"), "{}", mistakes[0].text);
}

#[test]
fn a_name_that_is_made_of_a_path_is_no_other_files_stem() {
    let toml = |dest: &str| format!("[template]\nsrc=\"t\"\ndest=\"/{dest}\"\nkeys=[\"/a\"]\n");
    let files = ["app", "x/app", "x-app"]
        .map(|stem| (format!("conf.d/{stem}.toml"), toml(&stem.replace('/', "."))));
    let mut all: Vec<(&str, &str)> = vec![("templates/t", "")];
    all.extend(files.iter().map(|(file, text)| (file.as_str(), text.as_str())));
    let confdir = Folder::with(&all).load().unwrap();
    let names: Vec<&str> = confdir.resources.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["app", "x--app", "x-app"]);
}
