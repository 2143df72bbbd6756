//! The output of a dry run: what would be written, or how it differs.

use std::path::Path;

use common::runtime::print;
use diffy::DiffOptions;

use crate::install::{Candidate, Digest, current};

/// Prints what would be done.
pub(super) fn show(candidates: &[Candidate], diff: bool) -> anyhow::Result<()> {
    for candidate in candidates {
        let dest = &candidate.target.dest;
        let before = std::fs::read(dest).unwrap_or_default();
        let targets = [candidate.target.clone()];
        if current(&targets)? == Some(Digest::of(std::slice::from_ref(candidate))) {
            print(format_args!("{}: in sync\n", dest.display()));
        } else if diff {
            print(unified(dest, &before, &candidate.bytes));
        } else {
            print(format_args!(
                "{}: would be written ({} bytes)\n",
                dest.display(),
                candidate.bytes.len()
            ));
        }
    }
    Ok(())
}

fn unified(dest: &Path, before: &[u8], after: &[u8]) -> String {
    let (before, after) = (String::from_utf8_lossy(before), String::from_utf8_lossy(after));
    let name = dest.display().to_string();
    DiffOptions::new()
        .set_context_len(3)
        .set_original_filename(name.clone())
        .set_modified_filename(format!("{name} (wanted)"))
        .create_patch(&before, &after)
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_has_the_form_of_diff() {
        let before = b"a\nb\nc\nd\ne\n";
        let text = unified(Path::new("/etc/app.conf"), before, b"a\nb\nc\nd\nE\n");
        let want =
            "--- /etc/app.conf\n+++ /etc/app.conf (wanted)\n@@ -2,4 +2,4 @@\n b\n c\n d\n-e\n+E\n";
        assert_eq!(text, want);
        assert!(unified(Path::new("/x"), b"a", b"").contains("\\ No newline at end of file"));
    }
}
