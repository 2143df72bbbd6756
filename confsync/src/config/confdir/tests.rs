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
        load(self.0.path(), &Globals::default())
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
        (resource.name.as_str(), resource.mode, resource.uid),
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
fn with_nginx_as_our_child_a_resource_without_commands_is_its() {
    let toml = "[template]\nsrc=\"t\"\ndest=\"/d\"\n";
    let folder = Folder::with(&[("conf.d/a.toml", toml), ("templates/t", "")]);
    assert_eq!(folder.load().unwrap().resources[0].nginx, None);
    let globals = Globals { nginx_is_our_child: true, ..Globals::default() };
    let confdir = load(folder.0.path(), &globals).unwrap();
    assert!(confdir.resources[0].nginx.is_some());
}

#[test]
fn every_mistake_of_every_file_is_told_at_once() {
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
fn a_misspelt_key_is_told_beside_the_mistakes() {
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
    assert_eq!(confdir.resources[0].dest, std::env::current_dir().unwrap().join("rel/x"));
    assert!(confdir.notes.iter().any(|note| !note.ignored && note.text.contains("rel/x")));
}

#[test]
fn a_mistake_with_a_place_is_one_that_editors_follow() {
    let said = |text: &str| Mistake { file: "t".into(), text: text.into() }.to_string();
    assert_eq!(said("2:1: no"), "t:2:1: no");
    assert_eq!(said("no"), "t: no");
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
