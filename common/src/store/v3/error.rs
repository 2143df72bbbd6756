//! From gRPC statuses of etcd v3 to the errors that callers decide by.

use etcd_client::Error;

use crate::model::Key;
use crate::store::StoreError;
use crate::store::reason::with_sources;

// The numbers of gRPC's status codes.
const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const FAILED_PRECONDITION: i32 = 9;
const OUT_OF_RANGE: i32 = 11;
const UNIMPLEMENTED: i32 = 12;
const UNAUTHENTICATED: i32 = 16;

const NO_QUORUM: &str = "without a majority of its members etcd answers nothing, and no lease ends";

/// Why a call to etcd v3 failed: the cases that its callers in this module handle.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server does not know the lease.
    LeaseUnknown,
    /// The requested revision is no longer kept.
    Compacted,
    /// The answer is larger than what is accepted.
    TooLarge,
    /// Authentication is off in etcd, and a user was given.
    AuthOff,
    /// The user lacks a right; the server does not say which.
    NoRight(String),
    /// The connection's token or user is not accepted; another connection may be.
    Unauthenticated(String),
    /// Anything else.
    Store(StoreError),
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Store(error) => error,
            Failure::LeaseUnknown => Self::Unreachable("the lease has ended".to_owned()),
            Failure::Compacted => {
                Self::Unreachable("the history was compacted during the read".to_owned())
            }
            Failure::TooLarge => Self::Rejected(
                "one value is larger than the largest answer that is accepted".to_owned(),
            ),
            Failure::AuthOff => Self::Unreachable(
                "authentication is off in etcd; connecting again without a user".to_owned(),
            ),
            Failure::NoRight(text) => Self::Denied(format!("{text}{WHICH_RIGHT}")),
            Failure::Unauthenticated(text) => Self::Denied(text),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::GRpcStatus(status) => {
                // The message of a cut connection is only "transport error"; the cause (refused,
                // certificate) is in the sources.
                let text = with_sources(status.message(), std::error::Error::source(&status));
                of_code(i32::from(status.code()), text)
            }
            Error::LeaseKeepAliveError(text) if text == "lease not found" => Self::LeaseUnknown,
            Error::InvalidArgs(text) => Self::Store(StoreError::Rejected(text)),
            Error::InvalidUri(e) => Self::Store(StoreError::Rejected(e.to_string())),
            Error::TransportError(e) => {
                let text = with_sources("", Some(&e));
                Self::Store(StoreError::Unreachable(text))
            }
            other => Self::Store(StoreError::Unreachable(other.to_string())),
        }
    }
}

/// What to do about a right that is not known.
const WHICH_RIGHT: &str = ": no role of the user has the right that this needs; the log names what \
                           is missing, and docs/how-to/least-rights.md all of it";

/// The error of a write to `key`: etcd does not say which right it denies. A guard reads.
pub(super) fn of_write(key: &Key, failure: Failure) -> StoreError {
    match failure {
        Failure::NoRight(text) => StoreError::Denied(format!(
            "{text}: no right to read and write {key}: `etcdctl role grant-permission ROLE \
             readwrite {key}` grants it"
        )),
        other => other.into(),
    }
}

fn of_code(code: i32, text: String) -> Failure {
    let has = |part: &str| text.contains(part);
    let error = match code {
        NOT_FOUND if has("lease not found") => return Failure::LeaseUnknown,
        OUT_OF_RANGE if has("compacted") => return Failure::Compacted,
        OUT_OF_RANGE if has("message length too large") => return Failure::TooLarge,
        FAILED_PRECONDITION if has("authentication is not enabled") => return Failure::AuthOff,
        PERMISSION_DENIED => return Failure::NoRight(text),
        UNAUTHENTICATED => return Failure::Unauthenticated(text),
        INVALID_ARGUMENT if has("user name is empty") => {
            return Failure::Unauthenticated(format!(
                "{text}: it requires a user and a password, or a client certificate and its key"
            ));
        }
        INVALID_ARGUMENT if has("authentication failed") => {
            return Failure::Unauthenticated(format!(
                "{text}: compare the user and the password with what etcd has"
            ));
        }
        // Users or permissions changed; with a new token the request succeeds.
        INVALID_ARGUMENT if has("auth store is old") => StoreError::Unreachable(text),
        RESOURCE_EXHAUSTED if has("space exceeded") => StoreError::NoSpace(format!(
            "{text}: compact and defragment etcd, then `etcdctl alarm disarm`"
        )),
        _ if has("no leader") => StoreError::NoQuorum(format!("{text}: {NO_QUORUM}")),
        UNIMPLEMENTED => StoreError::Unsupported(format!(
            "this server does not have the v3 API ({text}); is it an etcd before 3.0? then use v2"
        )),
        INVALID_ARGUMENT | NOT_FOUND | FAILED_PRECONDITION | OUT_OF_RANGE => {
            StoreError::Rejected(text)
        }
        _ => StoreError::Unreachable(text),
    };
    Failure::Store(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_own_error() {
        let of = |code, text: &str| StoreError::from(of_code(code, text.to_owned()));
        let no_leader = of(14, "etcdserver: no leader");
        assert!(matches!(no_leader, StoreError::NoQuorum(_)) && no_leader.is_transient());
        let denied = "etcdserver: permission denied";
        let unknown = of(7, denied).to_string();
        assert!(unknown.contains("least-rights.md"), "{unknown}");
        let key = "/services/a".parse().unwrap();
        let write = of_write(&key, of_code(7, denied.to_owned())).to_string();
        assert!(write.contains("grant-permission ROLE readwrite /services/a`"), "{write}");
        assert!(!write.contains("least-rights.md"), "the right is named: {write}");
        assert!(of(2, "context deadline exceeded").is_transient());
        assert!(matches!(of(16, "etcdserver: invalid auth token"), StoreError::Denied(_)));
        assert!(matches!(of(3, "etcdserver: user name is empty"), StoreError::Denied(_)));
        assert!(of(3, "etcdserver: revision of auth store is old").is_transient());
        assert!(matches!(of(3, "etcdserver: request is too large"), StoreError::Rejected(_)));
        let full = of(8, "etcdserver: mvcc: database space exceeded").to_string();
        assert!(full.contains("alarm disarm"), "{full}");
        assert!(matches!(of(12, "unknown service"), StoreError::Unsupported(_)));
        let lease = of_code(5, "etcdserver: requested lease not found".to_owned());
        assert!(matches!(lease, Failure::LeaseUnknown));
    }
}
