//! The client of the current endpoint: connecting it, and the bounds of each request.

use std::sync::{Arc, PoisonError};

use etcd_client::{Client, ConnectOptions, KvClient};
use tokio::time::{Instant, timeout};

use super::error::Failure;
use super::{V3, V3Settings, channel};
use crate::store::endpoints::EndpointChoice;
use crate::store::{REQUEST_TIMEOUT, StoreError};

/// The largest answer that is accepted. tonic's own bound of 4 MiB is less than one page of large
/// values, or one batch of events, can have.
pub(super) const MAX_ANSWER: usize = 128 * 1024 * 1024;

/// A client and the endpoint it belongs to. Shared, because a client is large.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) endpoint: EndpointChoice,
    pub(super) client: Arc<Client>,
}

impl Link {
    pub(super) fn kv(&self) -> KvClient {
        self.client.kv_client().max_decoding_message_size(MAX_ANSWER)
    }
}

impl V3 {
    /// The client of the current endpoint, made if there is none yet.
    pub(super) async fn link(&self, deadline: Instant) -> Result<Link, StoreError> {
        let endpoint = self.shared.endpoints.choose().await?;
        let cache = || self.shared.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = cache().as_ref().filter(|link| link.endpoint.epoch == endpoint.epoch) {
            self.learn_members(link);
            return Ok(link.clone());
        }
        let client = self.bounded(&endpoint, deadline, self.connect(&endpoint)).await?;
        let link = Link { endpoint, client: Arc::new(client) };
        *cache() = Some(link.clone());
        self.learn_members(&link);
        Ok(link)
    }

    /// Asks for the members once in a while, if configured, in the background.
    fn learn_members(&self, link: &Link) {
        let (endpoints, client) = (self.shared.endpoints.clone(), Arc::clone(&link.client));
        if !endpoints.is_due_to_learn() {
            return;
        }
        tokio::spawn(async move {
            let mut cluster = client.cluster_client();
            match timeout(REQUEST_TIMEOUT, cluster.member_list()).await {
                Ok(Ok(list)) => {
                    let urls = list.members().iter().flat_map(|member| member.client_urls());
                    endpoints.learn(&urls.cloned().collect::<Vec<_>>());
                }
                Ok(Err(error)) => tracing::debug!(%error, "cannot ask for the members of etcd"),
                Err(_) => tracing::debug!("no answer about the members of etcd"),
            }
        });
    }

    async fn connect(&self, endpoint: &EndpointChoice) -> Result<Client, Failure> {
        let options = ConnectOptions::new().with_require_leader(true).with_auto_token_refresh(true);
        let open = |options| self.open(endpoint, options);
        let Some(user) = &self.shared.settings.user else { return open(options).await };
        let password = user.password().map_err(Failure::Store)?;
        let with_user = options.clone().with_user(&user.name, password.as_str());
        match open(with_user).await {
            Err(Failure::AuthOff) => {
                tracing::warn!(
                    user = user.name,
                    "authentication is off in etcd; connecting without a user"
                );
                open(options).await
            }
            other => other,
        }
    }

    async fn open(
        &self,
        endpoint: &EndpointChoice,
        options: ConnectOptions,
    ) -> Result<Client, Failure> {
        let V3Settings { tls, connect, .. } = &self.shared.settings;
        let channel = channel::connect(&endpoint.url, tls.clone(), *connect).await?;
        Ok(Client::from_channel(channel, Some(options)).await?)
    }

    /// Awaits one request of the etcd client, until `deadline` at most.
    pub(super) async fn call<T>(
        &self,
        endpoint: &EndpointChoice,
        deadline: Instant,
        request: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, Failure> {
        self.bounded(endpoint, deadline, async { Ok(request.await?) }).await
    }

    /// Awaits `request`, until `deadline` at most, and goes on to a new connection when this
    /// one brings no answer, or one that depends on how the connection was made.
    pub(super) async fn bounded<T>(
        &self,
        endpoint: &EndpointChoice,
        deadline: Instant,
        request: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        // tonic's futures are several kilobytes each, and callers nest them.
        let request = Box::pin(async {
            match request.await {
                Err(Failure::Store(error)) => Err(error),
                other => Ok(other),
            }
        });
        let endpoints = &self.shared.endpoints;
        let answer = endpoints.bounded(endpoint, deadline, request).await;
        let answer = answer.unwrap_or_else(|error| Err(Failure::Store(error)));
        if let Err(Failure::AuthOff | Failure::Unauthenticated(_)) = answer {
            // A new client brings a new token, or none.
            endpoints.switch(endpoint.epoch);
        }
        answer
    }
}
