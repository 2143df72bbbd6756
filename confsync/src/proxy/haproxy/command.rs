//! The commands of a worker's socket that change or show its servers, built from validated words.
//!
//! The invariant: no word can end a command, begin another, or be split in two. HAProxy splits
//! lines at `;` and line breaks, words at spaces, and treats `\` as an escape.

use std::fmt;
use std::net::SocketAddr;

/// One word of a command.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Word(String);

impl Word {
    /// The word, if it can be sent as it is.
    pub(super) fn new(text: &str) -> Option<Self> {
        let plain = |c: char| c.is_ascii_graphic() && !";\\\"'#<>$`|&@!".contains(c);
        let is_word = (1..=256).contains(&text.len()) && text.chars().all(plain);
        is_word.then(|| Self(text.to_owned()))
    }

    /// A word of a `default-server` line, where `@` is common and harmless (`ssl crt @x/y`).
    pub(super) fn option(text: &str) -> Option<Self> {
        Self::new(&text.replace('@', "")).map(|_| Self(text.to_owned())).filter(|w| !w.0.is_empty())
    }

    /// Its text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A server of a backend.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ServerName {
    pub(super) backend: Word,
    /// The server in it.
    pub(super) name: Word,
}

/// The administrative state of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admin {
    /// Takes requests.
    Ready,
    /// Takes no new ones, not even for a client whose cookie names it.
    Maintenance,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RuntimeCommand {
    /// Which worker answers, and whether it is stopping.
    Info,
    /// All servers of a backend.
    Servers(Word),
    /// The counters of all servers.
    AllCounters,
    /// The counters of one server.
    Counters(Word, u32),
    /// A new server, in maintenance.
    Add {
        server: ServerName,
        address: SocketAddr,
        /// Its number in the backend.
        id: u32,
        /// 0 to 256.
        weight: u16,
        /// The other keywords of its `server` line.
        options: Vec<Word>,
    },
    /// Sets the administrative state.
    Set(ServerName, Admin),
    /// Sets the weight.
    Weight(ServerName, u16),
    /// Enables its health checks.
    Check(ServerName),
    /// Enables its agent checks.
    Agent(ServerName),
    /// Deletes it; only in maintenance and without requests.
    Delete(ServerName),
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.backend, self.name)
    }
}

impl fmt::Display for RuntimeCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Info => f.write_str("show info"),
            Self::Servers(backend) => write!(f, "show servers state {backend}"),
            // 4: servers.
            Self::AllCounters => f.write_str("show stat -1 4 -1"),
            Self::Counters(backend, id) => write!(f, "show stat {backend} 4 {id}"),
            Self::Add { server, address, id, weight, options } => {
                write!(f, "add server {server} {address} id {id}")?;
                options.iter().try_for_each(|word| write!(f, " {word}"))?;
                write!(f, " weight {weight}")
            }
            Self::Set(server, Admin::Ready) => write!(f, "set server {server} state ready"),
            Self::Set(server, Admin::Maintenance) => write!(f, "set server {server} state maint"),
            Self::Weight(server, weight) => write!(f, "set server {server} weight {weight}"),
            Self::Check(server) => write!(f, "enable health {server}"),
            Self::Agent(server) => write!(f, "enable agent {server}"),
            Self::Delete(server) => write!(f, "del server {server}"),
        }
    }
}

impl RuntimeCommand {
    /// Whether HAProxy's answer to a deletion means that the server is not there.
    pub(super) fn is_gone(&self, answer: &str) -> bool {
        self.is_done(answer) || answer.contains("No such server")
    }

    /// Whether HAProxy's answer means success. There are no status codes: the answers of successful
    /// commands are known, and any other is a failure.
    pub(super) fn is_done(&self, answer: &str) -> bool {
        match self {
            // Warnings about its options may come first.
            Self::Add { .. } => answer.lines().any(|line| line.trim() == "New server registered."),
            Self::Delete(_) => answer.trim() == "Server deleted.",
            Self::Info | Self::Servers(_) | Self::AllCounters | Self::Counters(..) => {
                !answer.is_empty()
            }
            _ => answer.trim().is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn word(text: &str) -> Word {
        Word::new(text).unwrap()
    }

    #[test]
    fn commands_as_haproxy_reads_them() {
        let server = ServerName { backend: word("apache"), name: word("10.0.0.1:80") };
        let options = ["check", "inter", "2s"].map(word).to_vec();
        let address = "[::1]:80".parse().unwrap();
        let add =
            RuntimeCommand::Add { server: server.clone(), address, id: 7, weight: 3, options };
        let lines = [
            (add, "add server apache/10.0.0.1:80 [::1]:80 id 7 check inter 2s weight 3"),
            (
                RuntimeCommand::Set(server.clone(), Admin::Maintenance),
                "set server apache/10.0.0.1:80 state maint",
            ),
            (RuntimeCommand::Delete(server), "del server apache/10.0.0.1:80"),
            (RuntimeCommand::Counters(word("apache"), 7), "show stat apache 4 7"),
        ];
        for (command, line) in lines {
            assert_eq!(command.to_string(), line);
        }
    }

    /// Answers of 2.6, as recorded.
    #[test]
    fn only_a_known_answer_is_success() {
        let server = ServerName { backend: word("a"), name: word("b") };
        let add = RuntimeCommand::Add {
            server: server.clone(),
            address: "127.0.0.1:1".parse().unwrap(),
            id: 1,
            weight: 1,
            options: vec![],
        };
        assert!(add.is_done("New server registered.\n"));
        for refused in [
            "",
            "Already exists a server with the same name in backend.",
            "'id' : custom id 10 already used at (null):0 ('server c').",
            "'resolvers' option is not accepted for dynamic server",
            "unknown keyword 'bogus'.",
            "No such backend.",
        ] {
            assert!(!add.is_done(refused), "{refused}");
        }
        let delete = RuntimeCommand::Delete(server.clone());
        assert!(delete.is_done("Server deleted."));
        let attached = "Server still has connections attached to it, cannot remove it.";
        assert!(!delete.is_done(attached) && !delete.is_done("No such server."));
        let weight = RuntimeCommand::Weight(server, 300);
        assert!(weight.is_done("\n"));
        assert!(!weight.is_done("Absolute weight can only be between 0 and 256 inclusive."));
    }

    /// What HAProxy's own tests (reg-tests/server, 3.5) expect.
    #[test]
    fn answers_of_newer_versions() {
        let server = ServerName { backend: word("test"), name: word("s1") };
        let address = "127.0.0.1:1".parse().unwrap();
        let (id, weight) = (1, 1);
        let add =
            RuntimeCommand::Add { server: server.clone(), address, id, weight, options: vec![] };
        for refused in [
            "No such backend.",
            "'server' expects <name> and <addr>[:<port>] as arguments.",
            "backend 'other' uses a non dynamic load balancing method",
            "MUX protocol is not usable for server.",
            "Already exists a server with the same name in backend.",
        ] {
            assert!(!add.is_done(refused), "{refused}");
        }
        assert!(add.is_done("[WARNING] a keyword is deprecated\nNew server registered.\n"));
        let delete = RuntimeCommand::Delete(server);
        for refused in [
            "No such backend.",
            "No such server.",
            "This server cannot be removed at runtime due to other configuration elements pointing \
             to it.",
            "Only servers in maintenance mode can be deleted.",
        ] {
            assert!(!delete.is_done(refused), "{refused}");
        }
        assert!(delete.is_done("Server deleted.\n"));
    }

    proptest! {
        #[test]
        fn nothing_in_a_word_ends_a_command(text in "[ -~\n\t;\\\\<@é]{0,12}") {
            if let Some(word) = Word::new(&text) {
                let command = RuntimeCommand::Servers(word.clone()).to_string();
                prop_assert_eq!(command.split_whitespace().last(), Some(word.as_str()));
                prop_assert!(!command.contains([';', '\\', '\n', '<', '@', '!']));
            }
        }
    }
}
