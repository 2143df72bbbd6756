//! The file that a failure is about. Pure.

/// The first of `files` that `text` mentions with a line number, as nginx, HAProxy and the
/// templates do: `/etc/nginx/nginx.conf:12`.
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

/// The resource of `group` whose file `why` mentions, where `dests` are the files in the order of
/// the resources; without a mention, the only resource there is.
pub(super) fn named_resource<'g>(why: &str, group: &'g str, dests: &[String]) -> Option<&'g str> {
    let names: Vec<&str> = match dests.len() {
        1 => vec![group],
        // The group has the names of its resources, joined.
        _ => group.split('+').collect(),
    };
    let index = match named_line(why, dests.iter().map(String::as_str)) {
        Some((index, _)) if names.len() == dests.len() => index,
        _ if names.len() == 1 => 0,
        _ => return None,
    };
    names.get(index).copied()
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

    #[test]
    fn the_resource_of_a_failure() {
        let two = ["/a.conf".to_owned(), "/b.conf".to_owned()];
        assert_eq!(named_resource("/b.conf:3: no", "a+b", &two), Some("b"));
        assert_eq!(named_resource("no", "a+b", &two), None);
        assert_eq!(named_resource("no", "a+b", &two[..1]), Some("a+b"), "a name with a plus");
    }
}
