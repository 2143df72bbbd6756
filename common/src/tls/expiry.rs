//! When our own certificate expires, and a warning before it is too late.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{FromFiles, TlsFiles};
use crate::model::format_span;

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_secs(60);

/// The pause between two warnings.
const REMIND: Duration = Duration::from_secs(24 * 3600);

/// The time in which a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its begin.
    pub from: SystemTime,
    /// Its end.
    pub until: SystemTime,
}

impl Validity {
    /// From its begin to its end.
    pub fn lifetime(&self) -> Duration {
        self.until.duration_since(self.from).unwrap_or_default()
    }
}

/// When our own certificate is valid, always the newest; `None` without one that can be read.
pub type CertificateExpiry = watch::Receiver<Option<Validity>>;

/// Follows the certificate in `files` until `shutdown`, and warns when a tenth of its lifetime
/// is left.
pub fn follow_expiry(files: &TlsFiles, shutdown: CancellationToken) -> CertificateExpiry {
    let (sender, receiver) = watch::channel(None);
    if let Some(file) = files.cert.clone() {
        tokio::spawn(async move {
            shutdown.run_until_cancelled(follow(file, sender)).await;
        });
    }
    receiver
}

async fn follow(file: PathBuf, sender: watch::Sender<Option<Validity>>) {
    let source = FromFiles::new(vec![file.clone()], &["certificate"], validity_of_file);
    let mut ticks = tokio::time::interval(INTERVAL);
    let mut warned: Option<SystemTime> = None;
    loop {
        ticks.tick().await;
        let validity = source.current().ok().map(|validity| *validity);
        sender.send_if_modified(|known| std::mem::replace(known, validity) != validity);
        let now = SystemTime::now();
        let quiet = warned.is_some_and(|at| now.duration_since(at).is_ok_and(|ago| ago < REMIND));
        match validity.and_then(|validity| warning(validity, now, &file)) {
            Some(text) if !quiet => {
                tracing::warn!("{text}");
                warned = Some(now);
            }
            Some(_) => {}
            None => warned = None,
        }
    }
}

/// The warning about a certificate of which less than a tenth of its lifetime is left.
fn warning(validity: Validity, now: SystemTime, file: &Path) -> Option<String> {
    let file = file.display();
    let Ok(left) = validity.until.duration_since(now) else {
        return Some(format!("the client certificate {file} has expired; put a new one there"));
    };
    let left = Duration::from_secs(left.as_secs());
    (left < validity.lifetime() / 10).then(|| {
        format!(
            "the client certificate {file} expires in {}; put a new one there",
            format_span(left)
        )
    })
}

fn validity_of_file(paths: &[PathBuf], contents: &[Vec<u8>]) -> Result<Validity, String> {
    let pem = contents.first().map_or(&[][..], Vec::as_slice);
    // The first is ours; its chain follows.
    let certificate = CertificateDer::from_pem_slice(pem).ok();
    let file = paths.first().map(|path| path.display().to_string()).unwrap_or_default();
    certificate
        .and_then(|der| validity(&der))
        .ok_or_else(|| format!("cannot read the dates of the certificate in {file}"))
}

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The dates of a certificate in DER (RFC 5280, 4.1): a sequence whose first element is the
/// sequence of version, serial number, algorithm, issuer, and validity.
fn validity(der: &[u8]) -> Option<Validity> {
    let (_, certificate, _) = element(der).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, mut fields, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    if let Some((VERSION, _, rest)) = element(fields) {
        fields = rest;
    }
    for _ in ["serial number", "algorithm", "issuer"] {
        (_, _, fields) = element(fields)?;
    }
    let (_, dates, _) = element(fields).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (tag, from, rest) = element(dates)?;
    let from = time(tag, from)?;
    let (tag, until, _) = element(rest)?;
    Some(Validity { from, until: time(tag, until)? })
}

/// Tag and content of the first element, and what follows it.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        // A longer length is no certificate's.
        let fits = bytes.len() <= 4;
        let length = bytes.iter().fold(0, |length: usize, byte| length << 8 | usize::from(*byte));
        (Some(length).filter(|_| fits)?, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `260101000000Z`, or `20500101000000Z`.
fn time(tag: u8, text: &[u8]) -> Option<SystemTime> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, at) = match tag {
        // RFC 5280: 50 to 99 are of the last century.
        UTC_TIME => {
            let short = number(0, 2)?;
            (if short < 50 { 2000 + short } else { 1900 + short }, 2)
        }
        GENERALIZED_TIME => (number(0, 4)?, 4),
        _ => return None,
    };
    let pair = |index: usize| number(at + 2 * index, at + 2 * index + 2);
    let days = days_since_1970(year, pair(0)?, pair(1)?);
    let seconds = ((days * 24 + pair(2)?) * 60 + pair(3)?) * 60 + pair(4)?;
    let span = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { UNIX_EPOCH.checked_sub(span) } else { UNIX_EPOCH.checked_add(span) }
}

/// Of the proleptic Gregorian calendar; years are counted from March, so that the leap day is
/// the last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unix(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn the_dates_of_a_certificate_are_read() {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2024, 2, 29);
        params.not_after = rcgen::date_time_ymd(2051, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap();
        let dates = Validity { from: unix(1_709_164_800), until: unix(2_556_144_000) };
        assert_eq!(validity(der.der()), Some(dates));
        let pem = der.pem().into_bytes();
        assert_eq!(validity_of_file(&[], &[pem]), Ok(dates));
    }

    #[test]
    fn an_expiry_is_logged_a_tenth_of_the_lifetime_before() {
        let of = |now: u64| {
            let validity = Validity { from: unix(0), until: unix(1000) };
            warning(validity, unix(now), Path::new("/tls/a.pem"))
        };
        assert_eq!(of(900), None);
        let soon = of(940).unwrap();
        assert!(soon.contains("/tls/a.pem expires in 60s"), "{soon}");
        assert!(of(1001).unwrap().contains("has expired"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = validity(&bytes);
            let _ = time(UTC_TIME, &bytes);
        }

        #[test]
        fn no_damage_to_a_certificate_makes_it_panic(at in 0usize..400, byte in any::<u8>()) {
            let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            let key = rcgen::KeyPair::generate().unwrap();
            let mut der = params.self_signed(&key).unwrap().der().to_vec();
            if let Some(place) = der.get_mut(at) { *place = byte; }
            let _ = validity(&der);
        }
    }
}
