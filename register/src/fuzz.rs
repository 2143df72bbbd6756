//! The readers of what comes from outside, each for any bytes at all: `fuzz/` calls these with
//! what a fuzzer makes up, the property tests below with what chance does.

use crate::config::read_any_file;
use crate::probe::judge_any_answer;

/// A file of services.
pub fn services_file(data: &[u8]) {
    read_any_file(&String::from_utf8_lossy(data));
}

/// What a backend answers to a probe. The first byte chooses how it is asked (HTTP/1.1, for a
/// word in the body, HTTP/2), the rest is the answer.
pub fn probe_answer(data: &[u8]) {
    let Some((first, answer)) = data.split_first() else { return };
    judge_any_answer(*first, answer);
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const ANSWER: [&str; 20] = [
        "HTTP/1.1 ",
        "HTTP/1.0 ",
        "200",
        " OK",
        "100",
        "503",
        "\r\n",
        "\n",
        "\r\n\r\n",
        "Content-Length: ",
        "2",
        "-1",
        "Transfer-Encoding: chunked",
        "ok",
        "0\r\n\r\n",
        "X: y",
        "Connection: close",
        ": ",
        "ffffffffffffffff",
        "PRI * HTTP/2.0",
    ];
    const FILE: [&str; 18] = [
        "[[service]]",
        "[defaults]",
        "\n",
        "name",
        " = ",
        "\"",
        "web",
        "port",
        "80",
        "[",
        "]",
        "{",
        "}",
        ",",
        "interval",
        "2s",
        "check",
        "'''",
    ];

    fn words(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            6 => prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec()),
            1 => vec(any::<u8>(), 0..4),
        ];
        vec(word, 0..20).prop_map(|words| words.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_answer(how in any::<u8>(), answer in words(&ANSWER)) {
            judge_any_answer(how, &answer);
        }

        #[test]
        fn any_file(file in words(&FILE)) {
            services_file(&file);
        }
    }

    #[test]
    fn an_answer_is_judged() {
        let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert!(judge_any_answer(0, ok) && judge_any_answer(1, ok));
        assert!(!judge_any_answer(0, b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"));
        assert!(!judge_any_answer(2, ok), "that is no HTTP/2");
    }
}
