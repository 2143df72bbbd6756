//! The file that a failure is about. Pure.

/// The first of `files` that `text` mentions with a line number, as nginx, HAProxy and the
/// templates do: `/etc/nginx/nginx.conf:12`.
#[must_use]
pub fn named_line<'f>(
    text: &str,
    files: impl IntoIterator<Item = &'f str>,
) -> Option<(usize, usize)> {
    let line = |file: &str| {
        text.match_indices(file).find_map(|(at, _)| {
            let rest = text.get(at + file.len()..)?.strip_prefix(':')?;
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest.get(..digits)?.parse().ok()
        })
    };
    files.into_iter().enumerate().find_map(|(index, file)| Some((index, line(file)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_and_line_of_a_failure() {
        let files = ["/etc/nginx/a.conf", "/etc/nginx/cart.conf"];
        let nginx = "rejected: [emerg] unknown directive \"x\" in /etc/nginx/cart.conf:64";
        assert_eq!(named_line(nginx, files), Some((1, 64)));
        assert_eq!(named_line("/etc/nginx/a.conf:2:7: no such key", files), Some((0, 2)));
        assert_eq!(named_line("/etc/nginx/a.conf.bak:2", files), None);
        assert_eq!(named_line("cannot read /etc/nginx/a.conf", files), None);
    }
}
