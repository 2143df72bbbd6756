//! `register weight N`: tells a running sidekick, over the unix socket of its `--listen`, to
//! register its instance with another weight. The socket's mode says who may.

use std::time::Duration;

use clap::ArgMatches;
use common::model::MAX_WEIGHT;
use common::runtime::{Exit, ListenAddress, Usage, print};
use common::settings::{Layer, Mistakes, Reader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::setup::variable;
use crate::settings::{ONE_INSTANCE, SIDEKICK, WEIGHING};

/// How long the sidekick may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The longest answer that is read.
const LONGEST: u64 = 64 * 1024;

/// Sets the weight.
///
/// # Errors
/// Wrong usage, or the sidekick cannot be asked, or refuses.
pub(super) async fn weight(matches: &ArgMatches) -> anyhow::Result<Exit> {
    let (weight, socket, key) = wanted(matches).map_err(Usage::from)?;
    let path = match &socket {
        ListenAddress::Unix { path, .. } => path,
        ListenAddress::Tcp(address) => {
            let text = format!(
                "--listen {address}: a weight can only be set over a unix socket, whose mode says \
                 who may; start the sidekick with --listen unix:/run/NAME/status.sock, and pass \
                 the same here"
            );
            return Err(Usage(text).into());
        }
    };
    let request = request(weight, key.as_deref());
    let asking = async {
        let mut stream = UnixStream::connect(path).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(LONGEST).read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = match timeout(ANSWER, asking).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            anyhow::bail!("cannot ask the sidekick at {socket}: {error}; does it run?")
        }
        Err(_) => anyhow::bail!("the sidekick at {socket} does not answer"),
    };
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if !head.starts_with("HTTP/1.1 200") {
        anyhow::bail!("{socket}: {}", body.trim());
    }
    print(body);
    Ok(Exit::Done)
}

fn request(weight: u16, key: Option<&str>) -> String {
    let mut request = format!("PUT /weight/{weight}");
    if let Some(key) = key {
        let encoded = url::form_urlencoded::byte_serialize(key.as_bytes());
        request.push_str(&format!("?key={}", encoded.collect::<String>()));
    }
    request + " HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
}

fn wanted(matches: &ArgMatches) -> Result<(u16, ListenAddress, Option<String>), Mistakes> {
    let layer = Layer::from_matches(matches, WEIGHING.settings, &variable);
    let mut mistakes = Mistakes::default();
    let text = matches.get_one::<String>("weight").map_or("", String::as_str);
    let weight = text.parse::<u16>().ok().filter(|n| (1..=MAX_WEIGHT).contains(n));
    if weight.is_none() {
        let problem = format!("`{}` is not a number from 1 to {MAX_WEIGHT}", text.escape_debug());
        mistakes.add("N", problem);
    }
    let mut from = Reader::new(&layer, "", &mut mistakes);
    let why =
        "the unix socket of the sidekick, such as unix:/run/apache-discovery-7777/status.sock";
    let socket = from.need(&SIDEKICK, why, str::parse::<ListenAddress>);
    let key = from.text(&ONE_INSTANCE);
    let wanted = weight.zip(socket).map(|(weight, socket)| (weight, socket, key));
    mistakes.none_or_some(wanted)
}
