//! One request to the endpoint that is asked now, and what every answer says of the store.

use std::sync::atomic::Ordering;

use reqwest::{Method, RequestBuilder};
use tokio::time::{Instant, timeout};
use url::Url;

use super::V2;
use super::http::{key_url, receive};
use super::wire::{HttpReply, KeyReply};
use crate::model::{Entry, Revision};
use crate::store::endpoints::EndpointChoice;
use crate::store::version::ServerVersion;
use crate::store::{REQUEST_TIMEOUT, StoreError};

/// The headers of an answer that are about the store.
pub(super) struct StoreHeaders {
    pub(super) index: Revision,
    pub(super) cluster: u64,
}

pub(super) type Params<'p> = Vec<(&'static str, &'p str)>;

impl V2 {
    /// Whether the server offers v2. Asks for something that needs no permission.
    pub(in crate::store) async fn probe(&self, deadline: Instant) -> Result<(), StoreError> {
        let endpoint = self.shared.endpoints.choose().await?;
        let mut url = endpoint.url.clone();
        url.set_path("/v2/machines");
        let request = receive(self.request(Method::GET, url)?);
        let reply = self.shared.endpoints.bounded(&endpoint, deadline, request).await?;
        match reply.status {
            // `http://127.0.0.1:4001, http://…`: many a server answers 200 to anything.
            200 if reply.body.starts_with(b"http") || reply.body.is_empty() => Ok(()),
            200 => Err(StoreError::Unreachable(format!(
                "{}: the server there does not answer as etcd does; is the port right?",
                endpoint.name()
            ))),
            _ => reply.read().map(|_| ()),
        }
    }

    pub(super) fn request(&self, method: Method, url: Url) -> Result<RequestBuilder, StoreError> {
        let request = self.shared.settings.client.request(method, url);
        Ok(match &self.shared.settings.user {
            Some(user) => request.basic_auth(&user.name, Some(user.password()?)),
            None => request,
        })
    }

    /// What makes a read linearizable.
    async fn linearizable(
        &self,
        endpoint: &EndpointChoice,
        deadline: Instant,
    ) -> (&'static str, &'static str) {
        let member = &self.shared.member;
        let old = match member.old_reads(endpoint) {
            Some(old) => old,
            None => {
                let limit = deadline.saturating_duration_since(Instant::now()) / 2;
                let client = &self.shared.settings.client;
                let version = ServerVersion::ask(client, &endpoint.url, limit).await;
                // Without an answer, the read itself reports what is wrong.
                let old = version.as_ref().is_ok_and(|version| version.major == Some(0));
                if version.is_ok() {
                    member.record_old_reads(endpoint, old);
                }
                old
            }
        };
        // To the leader, or by quorum.
        if old { ("consistent", "true") } else { ("quorum", "true") }
    }

    /// One request to the current endpoint; a GET reads linearizably.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        params: &Params<'_>,
        deadline: Instant,
    ) -> Result<(KeyReply, StoreHeaders), StoreError> {
        let endpoint = self.shared.endpoints.choose().await?;
        let url = key_url(&endpoint.url, path);
        let linearizable = match method {
            Method::GET => Some(self.linearizable(&endpoint, deadline).await),
            _ => None,
        };
        let form = method == Method::PUT;
        let request = self.request(method.clone(), url)?.query(linearizable.as_slice());
        let request = if form { request.form(params) } else { request.query(params) };
        let answer = async {
            let reply = receive(request).await?;
            let read = reply.read().map_err(|error| of_right(error, &method, path, params))?;
            Ok((read, StoreHeaders { index: reply.index()?, cluster: reply.cluster }))
        };
        let answer = self.shared.endpoints.bounded(&endpoint, deadline, answer).await?;
        self.shared.last_index.store(answer.1.index.0, Ordering::Relaxed);
        self.learn_members(&endpoint);
        Ok(answer)
    }

    /// Asks for the members once in a while, if configured, in the background.
    fn learn_members(&self, endpoint: &EndpointChoice) {
        let endpoints = self.shared.endpoints.clone();
        if !endpoints.is_due_to_learn() {
            return;
        }
        let mut url = endpoint.url.clone();
        // All ages of v2 have it: `http://10.0.0.1:4001, http://10.0.0.2:4001`.
        url.set_path("/v2/machines");
        let Ok(request) = self.request(Method::GET, url) else { return };
        tokio::spawn(async move {
            let reply = timeout(REQUEST_TIMEOUT, receive(request)).await;
            let Ok(Ok(HttpReply { status: 200, body, .. })) = reply else { return };
            let text = String::from_utf8_lossy(&body);
            endpoints.learn(&text.split(',').map(|url| url.trim().to_owned()).collect::<Vec<_>>());
        });
    }

    pub(super) async fn get(
        &self,
        path: &str,
        deadline: Instant,
    ) -> Result<(KeyReply, StoreHeaders), StoreError> {
        self.ask(Method::GET, path, &Vec::new(), deadline).await
    }

    /// The entry at a key, if there is one, and the store's index.
    pub(super) async fn entry(
        &self,
        path: &str,
        deadline: Instant,
    ) -> Result<(Option<Entry>, Revision), StoreError> {
        let (reply, headers) = self.get(path, deadline).await?;
        let entry = match reply {
            KeyReply::Done(event) => event.node.entry(),
            KeyReply::Failed(_) => None,
        };
        Ok((entry, headers.index))
    }
}

/// Names the right that a request needs. etcd v2 says neither that nor whether the user and the
/// password are right: its answer is the same.
fn of_right(error: StoreError, method: &Method, path: &str, params: &Params<'_>) -> StoreError {
    let StoreError::Denied(text) = error else { return error };
    let (right, flag) = match *method {
        Method::GET => ("read", "--read"),
        _ => ("write", "--readwrite"),
    };
    let (path, below) = match params.contains(&("recursive", "true")) {
        true => (path.trim_end_matches('/'), "*"),
        false => (path, ""),
    };
    StoreError::Denied(format!(
        "{text}; if these are right, the user has no right to {right} {path}{below}: `etcdctl role \
         grant ROLE --path '{path}{below}' {flag}` grants it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_that_is_missing_is_named_with_the_line_that_grants_it() {
        let denied = || StoreError::Denied("no".to_owned());
        let whole = vec![("recursive", "true")];
        let read = of_right(denied(), &Method::GET, "/services", &whole).to_string();
        assert!(read.contains("read /services*: `etcdctl role grant"), "{read}");
        assert!(read.contains("--path '/services*' --read`"), "{read}");
        let write = of_right(denied(), &Method::PUT, "/services/a", &Vec::new()).to_string();
        assert!(write.contains("write /services/a: `etcdctl"), "{write}");
        assert!(write.contains("--path '/services/a' --readwrite`"), "{write}");
    }
}
