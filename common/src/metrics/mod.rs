//! What the metrics of both daemons have alike: the process, the build, how etcd is used, when our
//! certificate expires.

mod process;

use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::registrar::{RequestCounts, RequestsByEndpoint};
use crate::tls::{CertificateExpiry, Validity};

/// A gauge of any number.
pub type FloatGauge = Gauge<f64, AtomicU64>;

/// How etcd is used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EtcdUse {
    /// `v3`, `v2`, or nothing before it was reached.
    pub api: &'static str,
    /// The endpoint that is asked now.
    pub endpoint: String,
    /// Requests about our own keys since the start.
    pub requests: RequestsByEndpoint,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByEndpoint {
    api: &'static str,
    endpoint: String,
}

/// All metrics of a program, in the OpenMetrics text format: those of its process, and below its
/// name those of any program of ours and what `more` registers.
pub fn metrics(
    program: &str,
    etcd: &EtcdUse,
    certificate: &CertificateExpiry,
    more: impl FnOnce(&mut Registry),
) -> String {
    let mut registry = Registry::default();
    process::register(&mut registry);
    let own = registry.sub_registry_with_prefix(program);
    let version = [("version", env!("CARGO_PKG_VERSION")), ("revision", crate::COMMIT)];
    own.register(
        "build",
        "Version of this program, and the commit it was built from",
        Info::new(version.to_vec()),
    );
    register_certificate(own, certificate);
    register_etcd(own, etcd);
    more(own);
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, &registry);
    text
}

/// Infinite without a certificate.
fn register_certificate(registry: &mut Registry, expiry: &CertificateExpiry) {
    let validity = *expiry.borrow();
    let lifetime = validity.map_or(f64::INFINITY, |validity| validity.lifetime().as_secs_f64());
    let help = "How long the client certificate for etcd is valid in all";
    registry.register_with_unit("certificate_lifetime", help, Unit::Seconds, number(lifetime));
    let left = validity.map_or(f64::INFINITY, |Validity { until, .. }| {
        let now = SystemTime::now();
        let ago = || now.duration_since(until).unwrap_or_default().as_secs_f64();
        until.duration_since(now).map_or_else(|_| -ago(), |left| left.as_secs_f64())
    });
    let help = "Time until the client certificate for etcd expires";
    registry.register_with_unit("certificate_expires", help, Unit::Seconds, number(left));
}

fn register_etcd(registry: &mut Registry, etcd: &EtcdUse) {
    let label = |endpoint: &String| ByEndpoint { api: etcd.api, endpoint: endpoint.clone() };
    let totals = |of: fn(&RequestCounts) -> u64| {
        let family = Family::<ByEndpoint, Counter>::default();
        for (endpoint, counts) in &etcd.requests {
            family.get_or_create(&label(endpoint)).inc_by(of(counts));
        }
        family
    };
    let help = "Requests to etcd about our own keys";
    registry.register("etcd_requests", help, totals(|counts| counts.requests));
    let help = "Failed requests to etcd about our own keys";
    registry.register("etcd_failures", help, totals(|counts| counts.failures));
    let endpoint = Family::<ByEndpoint, Gauge>::default();
    endpoint.get_or_create(&label(&etcd.endpoint)).set(i64::from(!etcd.endpoint.is_empty()));
    registry.register("etcd_endpoint", "1 for the etcd endpoint in use", endpoint);
}

/// A gauge with this value.
pub fn number(value: f64) -> FloatGauge {
    let gauge = FloatGauge::default();
    gauge.set(value);
    gauge
}

/// A gauge that is 1 for true.
pub fn yes(value: bool) -> FloatGauge {
    number(f64::from(u8::from(value)))
}
