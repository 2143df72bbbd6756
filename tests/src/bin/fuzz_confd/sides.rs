//! confd and confsync, each run once over the same confdir and the same keys.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use etcd_client::{Client, DeleteOptions};
use tests::{Confdir, Etcd, Lab, bins};
use tokio::process::Command;

use crate::case::FuzzCase;

const LONGEST: Duration = Duration::from_secs(60);

/// What a program made of a case.
#[derive(PartialEq)]
pub(crate) struct Rendered {
    /// Bytes and mode of the file.
    pub(crate) written: Option<(Vec<u8>, u32)>,
}

pub(crate) struct Sides {
    lab: Lab,
    etcd: Etcd,
    client: Client,
    confd: PathBuf,
    fork: bool,
}

impl Sides {
    pub(crate) async fn new(confd: PathBuf, fork: bool) -> anyhow::Result<Self> {
        let lab = Lab::new();
        let etcd = Etcd::start(&lab).await;
        let client = Client::connect([etcd.url()], None).await?;
        Ok(Self { lab, etcd, client, confd, fork })
    }

    /// What both make of each case, in one run of each. All have the keys of the first.
    pub(crate) async fn render(
        &mut self,
        cases: &[FuzzCase],
    ) -> anyhow::Result<Vec<[Rendered; 2]>> {
        self.client.delete("", Some(DeleteOptions::new().with_all_keys())).await?;
        for (key, value) in cases.first().map(|case| &case.keys).into_iter().flatten() {
            self.client.put(key.as_str(), *value, None).await?;
        }
        let confdir = Confdir::empty(&self.lab);
        let out = self.lab.folder(&format!("out-{:08x}", fastrand::u32(..)));
        let mut sides = Vec::new();
        for program in [self.confd.clone(), bins::confsync()] {
            let folder = out.join(program.file_name().unwrap_or_default());
            std::fs::create_dir_all(&folder)?;
            for (nth, case) in cases.iter().enumerate() {
                let dest = folder.join(nth.to_string());
                let head = format!("src = \"{nth}.tmpl\"\ndest = \"{}\"\n", dest.display());
                let toml = format!("[template]\n{head}{}\n", case.lines.join("\n"));
                confdir.toml(&nth.to_string(), &toml);
                confdir.template(&format!("{nth}.tmpl"), &case.template);
            }
            let fork = self.fork && sides.is_empty();
            let all_written = self.run(&program, &confdir, fork).await?;
            let rendered: Vec<_> =
                (0..cases.len()).map(|nth| written(&folder.join(nth.to_string()))).collect();
            // The exit code says whether all were written.
            let all_there = rendered.iter().all(|rendered| rendered.written.is_some());
            anyhow::ensure!(
                all_written == all_there,
                "{} says {all_written}, but all files there: {all_there}\n{}",
                program.display(),
                confdir.path().display()
            );
            sides.push(rendered);
        }
        std::fs::remove_dir_all(confdir.path())?;
        std::fs::remove_dir_all(out)?;
        let ours = sides.pop().unwrap_or_default();
        let theirs = sides.pop().unwrap_or_default();
        Ok(theirs.into_iter().zip(ours).map(|(theirs, ours)| [theirs, ours]).collect())
    }

    #[expect(clippy::disallowed_methods, reason = "run to its end, or to `LONGEST`")]
    async fn run(&self, program: &Path, confdir: &Confdir, fork: bool) -> anyhow::Result<bool> {
        let mut command = Command::new(program);
        command.env("NO_COLOR", "1");
        if fork {
            command.args(["--onetime", "--log-level", "error", "--confdir"]).arg(confdir.path());
            command.args(["etcd", "--node", &self.etcd.url()]);
        } else {
            command.args(["-onetime", "-backend", "etcdv3", "-log-level", "error"]);
            command.args(["-node", &self.etcd.address().to_string()]);
            command.arg("-confdir").arg(confdir.path());
        }
        command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let status = tokio::time::timeout(LONGEST, command.status()).await;
        let status = status.with_context(|| {
            format!("{} over {} does not end", program.display(), confdir.path().display())
        })??;
        Ok(status.success())
    }

    /// The smallest case that still differs: all that are a little smaller are tried at once.
    pub(crate) async fn shrink(&mut self, mut case: FuzzCase) -> anyhow::Result<FuzzCase> {
        'smaller: loop {
            let mut smaller = case.smaller();
            smaller.retain(|less| !less.is_documented(self.fork));
            // Those with other keys each need a run of their own.
            let with_same_keys = |less: &FuzzCase| less.keys == case.keys;
            let (same, other): (Vec<_>, Vec<_>) = smaller.into_iter().partition(with_same_keys);
            for group in same.chunks(40).chain(other.chunks(1)) {
                let rendered = self.render(group).await?;
                let differs = rendered.iter().position(|[theirs, ours]| theirs != ours);
                let Some(less) = differs.and_then(|nth| group.get(nth)) else { continue };
                // A program that was not given the time to finish has made no difference.
                let again = self.render(std::slice::from_ref(less)).await?;
                if again.iter().any(|[theirs, ours]| theirs != ours) {
                    case = less.clone();
                    continue 'smaller;
                }
            }
            return Ok(case);
        }
    }
}

fn written(file: &Path) -> Rendered {
    use std::os::unix::fs::PermissionsExt as _;
    let bytes = std::fs::read(file).ok();
    let mode = std::fs::metadata(file).map(|file| file.permissions().mode() & 0o7777);
    Rendered { written: bytes.zip(mode.ok()) }
}
