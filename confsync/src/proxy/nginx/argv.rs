//! Parses a command line of nginx, `nginx -c FILE -p PREFIX -g TEXT`, whatever starts it:
//! `entrypoint.sh nginx …`, `env A=b nginx …`, `sh -c "exec nginx …"`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The options of a command line that matter for a check.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NginxArgv {
    /// The program.
    pub binary: PathBuf,
    /// `-c`
    pub conf: Option<PathBuf>,
    /// `-p`
    pub prefix: Option<PathBuf>,
    /// `-g`
    pub globals: Option<String>,
    /// The arguments of nginx itself: the program and its options.
    pub words: Vec<OsString>,
    /// Another program runs first, and starts nginx when its own work is done.
    pub wrapped: bool,
}

/// nginx, and what is nginx under another name.
const NAMES: [&str; 5] = ["nginx", "nginx-debug", "openresty", "angie", "tengine"];

impl NginxArgv {
    /// Reads a command line; `None` if no program in it is called nginx (or openresty,
    /// angie, tengine, which are nginx under other names).
    pub fn read(argv: &[OsString]) -> Option<Self> {
        let words = own_words(argv)?;
        let (program, rest) = words.split_first()?;
        let binary = PathBuf::from(program);
        let wrapped = argv.first() != Some(program);
        let mut parsed = Self { binary, wrapped, ..Self::default() };
        let mut rest = rest.iter();
        while let Some(word) = rest.next() {
            parsed.option(word.as_bytes(), &mut rest);
        }
        Some(Self { words, ..parsed })
    }

    /// nginx accepts combined letters, and a value in the same argument or the next.
    fn option<'a>(&mut self, word: &[u8], rest: &mut impl Iterator<Item = &'a OsString>) {
        let Some(letters) = word.strip_prefix(b"-") else { return };
        for (at, letter) in letters.iter().enumerate() {
            if !b"cpges".contains(letter) {
                continue;
            }
            let value = match letters.get(at + 1..) {
                Some(value) if !value.is_empty() => Some(OsString::from_vec(value.to_vec())),
                _ => rest.next().cloned(),
            };
            // A value that only a shell can expand is taken from the files instead.
            let value = value.filter(|value| !value.as_bytes().contains(&b'$'));
            match letter {
                b'c' => self.conf = value.map(PathBuf::from),
                b'p' => self.prefix = value.map(PathBuf::from),
                b'g' => self.globals = value.map(|v| v.to_string_lossy().into_owned()),
                _ => {}
            }
            return;
        }
    }
}

/// The arguments from nginx on. Among the arguments of another program a path counts as nginx only
/// if it is a file: `/etc/nginx` is not.
fn own_words(argv: &[OsString]) -> Option<Vec<OsString>> {
    let (program, arguments) = argv.split_first()?;
    if is_nginx(program) {
        return Some(argv.to_vec());
    }
    let bare = |word: &OsString| !word.as_bytes().contains(&b'/') || Path::new(word).is_file();
    if let Some(at) = arguments.iter().position(|word| is_nginx(word) && bare(word)) {
        return arguments.get(at..).map(<[OsString]>::to_vec);
    }
    arguments.iter().filter_map(|word| word.to_str()).find_map(words_in_script)
}

/// The arguments of nginx in a shell script: of its last command that serves, and not only checks
/// files or sends a signal.
fn words_in_script(text: &str) -> Option<Vec<OsString>> {
    let words = shlex::split(&operators_apart(text)).filter(|words| words.len() > 1)?;
    let commands = words.rsplit(|word| OPERATORS.contains(&word.as_str()));
    let own = commands.filter_map(|command| {
        let at = command.iter().rposition(is_nginx)?;
        command.get(at..).filter(|own| serves(own))
    });
    own.map(|own| own.iter().map(OsString::from).collect()).next()
}

/// Whether nginx goes on to serve with these arguments: it only answers with `-t -T -v -V -h`, and
/// only sends a signal with `-s`.
fn serves(words: &[String]) -> bool {
    let is_other = |word: &String| {
        let letters = word.strip_prefix('-').unwrap_or_default();
        letters.trim_start_matches('q').starts_with(['t', 'T', 'v', 'V', 'h', '?', 's'])
    };
    !words.iter().any(is_other)
}

/// What ends a command in a shell script.
const OPERATORS: [&str; 7] = [";", "&", "|", "(", ")", "<", ">"];

/// A script with its operators as words of their own, which `shlex` leaves at their neighbours. A
/// line's end is one as well.
fn operators_apart(text: &str) -> String {
    let mut apart = String::with_capacity(text.len());
    let (mut quote, mut escaped) = (None, false);
    for letter in text.chars() {
        let is_quoted = escaped || quote.is_some();
        match letter {
            '\n' if !is_quoted => apart.push_str("\n;\n"),
            ';' | '&' | '|' | '(' | ')' | '<' | '>' if !is_quoted => {
                // The number of a redirected file belongs to the operator.
                let kept = apart.trim_end_matches(|c: char| c.is_ascii_digit()).len();
                if "<>".contains(letter) && apart.get(..kept).is_some_and(|t| t.ends_with(' ')) {
                    apart.truncate(kept);
                }
                apart.extend([' ', letter, ' ']);
            }
            _ => apart.push(letter),
        }
        quote = match (letter, quote) {
            _ if escaped => quote,
            ('\'' | '"', None) => Some(letter),
            (_, Some(open)) if open == letter => None,
            _ => quote,
        };
        escaped = !escaped && letter == '\\' && quote != Some('\'');
    }
    apart
}

fn is_nginx(word: impl AsRef<Path>) -> bool {
    let name = word.as_ref().file_name();
    name.is_some_and(|name| NAMES.iter().any(|known| name == *known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &[&str]) -> Option<NginxArgv> {
        NginxArgv::read(&line.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn options_as_nginx_takes_them() {
        let parsed = read(&["/usr/sbin/nginx", "-g", "daemon off;", "-c/etc/n.conf", "-qp", "/p"]);
        let parsed = parsed.unwrap();
        assert_eq!(parsed.binary, Path::new("/usr/sbin/nginx"));
        assert_eq!(parsed.globals.as_deref(), Some("daemon off;"));
        assert_eq!(parsed.conf.as_deref(), Some(Path::new("/etc/n.conf")));
        assert_eq!(parsed.prefix.as_deref(), Some(Path::new("/p")));
        assert_eq!(read(&["nginx", "-g"]).unwrap().globals, None);
        assert_eq!(read(&["haproxy", "-c", "x"]), None);
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn nginx_is_found_behind_what_starts_it() {
        for line in [
            ["/entrypoint.sh", "nginx", "-c", "/n.conf", "-g", "daemon off;"].as_slice(),
            &["env", "A=b", "nginx", "-c", "/n.conf", "-g", "daemon off;"],
            &["tini", "--", "nginx", "-c", "/n.conf", "-g", "daemon off;"],
            &["sh", "-c", "exec nginx -c /n.conf -g 'daemon off;'"],
            &["sh", "-c", "nginx -t && exec nginx -c /n.conf -g 'daemon off;' ; echo"],
            &["sh", "-c", "nginx -c /n.conf -g 'daemon off;'; exit $?"],
            &["sh", "-c", "nginx -c /n.conf -g \"daemon off;\"& wait $!; nginx -s quit"],
            &["sh", "-c", "trap 'nginx -s quit' TERM\nnginx -c /n.conf -g daemon\\ off\\;\nexit 1"],
            &["sh", "-c", "(nginx -c /n.conf -g 'daemon off;') 2>&1|tee /log"],
            &["sh", "-c", "exec nginx -c /n.conf -g 'daemon off;' 2>/dev/null"],
        ] {
            let parsed = read(line).unwrap();
            assert!(parsed.wrapped, "{line:?}");
            assert_eq!(parsed.conf.as_deref(), Some(Path::new("/n.conf")), "{line:?}");
            assert_eq!(parsed.globals.as_deref(), Some("daemon off;"), "{line:?}");
            assert_eq!(parsed.words, ["nginx", "-c", "/n.conf", "-g", "daemon off;"], "{line:?}");
        }
        assert_eq!(read(&["sh", "-c", "exec nginx -c $CONF"]).unwrap().conf, None);
        for line in [&["tail", "-F", "/etc/nginx"], &["sh", "-c", "exec ./start"]] {
            assert_eq!(read(line), None, "{line:?}");
        }
    }
}
