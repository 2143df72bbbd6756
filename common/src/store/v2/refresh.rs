//! Refreshing a key, which servers before 2.3 do not know: there `refresh=true` is ignored, and a
//! PUT without a value empties the key.
//!
//! So the first refresh carries the value. A server that knows refreshes rejects that, with an
//! error of its own and without an event; then, if the whole cluster is of 2.3 or newer, the value
//! is left out, and no watcher wakes. An older server writes the value once more. Whatever it was:
//! the answer shows what is stored now, and is compared with what was meant.

use std::time::Duration;

use reqwest::Method;
use tokio::time::Instant;

use super::V2;
use super::guarded::text;
use super::request::StoreHeaders;
use super::wire::{
    COMPARE_FAILED, KeyEvent, KeyReply, NOT_A_DIRECTORY, NOT_FOUND, VALUE_ON_REFRESH,
};
use crate::model::{Key, Revision};
use crate::store::endpoints::EndpointChoice;
use crate::store::version::ServerVersion;
use crate::store::{KeyState, Ownership, StoreError};

/// The first version whose members all keep the value in a refresh without one.
const KEEPS_VALUES: (u64, u64) = (2, 3);

/// What a refresh carries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RefreshForm {
    /// `refresh=true` alone.
    Bare,
    /// `refresh=true` and the value: one of the two is ignored or rejected.
    Both,
    /// The value alone: a write, which wakes watchers.
    Value,
}

/// One key to be refreshed.
struct Refresh<'a> {
    key: &'a Key,
    value: &'a str,
    ttl: Duration,
    deadline: Instant,
}

impl V2 {
    pub(super) async fn refresh_key(
        &self,
        key: &Key,
        ownership: Ownership,
        ttl: Duration,
        deadline: Instant,
    ) -> Result<(KeyState, Revision), StoreError> {
        let Some(value) = self.meant(key, deadline).await? else {
            let (_, index) = self.entry(key.as_str(), deadline).await?;
            return Ok((KeyState::Missing, index));
        };
        let refresh = Refresh { key, value: text(&value)?, ttl, deadline };
        let (reply, headers) = self.refresh_in_its_form(&refresh, ownership.modified).await?;
        match reply {
            KeyReply::Done(event) => self.stored(&refresh, &event, headers.index).await,
            KeyReply::Failed(error) if error.error_code == COMPARE_FAILED => {
                let (entry, index) = self.entry(key.as_str(), deadline).await?;
                Ok((entry.map_or(KeyState::Missing, KeyState::Foreign), index))
            }
            KeyReply::Failed(error) if [NOT_FOUND, NOT_A_DIRECTORY].contains(&error.error_code) => {
                Ok((KeyState::Missing, headers.index))
            }
            KeyReply::Failed(error) => Err(error.into()),
        }
    }

    /// The value that the key was given last; `None` if there is no such key.
    async fn meant(&self, key: &Key, deadline: Instant) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(value) = self.written().get(key) {
            return Ok(Some(value.clone()));
        }
        let (entry, _) = self.entry(key.as_str(), deadline).await?;
        Ok(entry.map(|entry| entry.value.to_vec()))
    }

    async fn refresh_in_its_form(
        &self,
        refresh: &Refresh<'_>,
        index: Revision,
    ) -> Result<(KeyReply, StoreHeaders), StoreError> {
        let endpoint = self.shared.endpoints.choose().await?;
        let bare = self.shared.member.bare_refresh(&endpoint);
        let form = if bare { RefreshForm::Bare } else { RefreshForm::Both };
        let answer = self.send_refresh(refresh, index, form).await?;
        match &answer.0 {
            KeyReply::Failed(error) if error.error_code == VALUE_ON_REFRESH => {}
            _ => return Ok(answer),
        }
        let keeps = self.cluster_keeps_values(&endpoint).await;
        self.shared.member.record_bare_refresh(&endpoint, keeps);
        let form = if keeps { RefreshForm::Bare } else { RefreshForm::Value };
        self.send_refresh(refresh, index, form).await
    }

    async fn send_refresh(
        &self,
        refresh: &Refresh<'_>,
        index: Revision,
        form: RefreshForm,
    ) -> Result<(KeyReply, StoreHeaders), StoreError> {
        let (ttl, index) = (refresh.ttl.as_secs().to_string(), index.to_string());
        let mut params =
            vec![("ttl", ttl.as_str()), ("prevExist", "true"), ("prevIndex", index.as_str())];
        if form != RefreshForm::Value {
            params.push(("refresh", "true"));
        }
        if form != RefreshForm::Bare {
            params.push(("value", refresh.value));
        }
        self.ask(Method::PUT, refresh.key.as_str(), &params, refresh.deadline).await
    }

    /// Whether each member, not only this one, knows refreshes: an older one that carries out the
    /// same entry of the log would empty the key.
    async fn cluster_keeps_values(&self, endpoint: &EndpointChoice) -> bool {
        let limit = crate::store::REQUEST_TIMEOUT;
        let client = &self.shared.settings.client;
        let version = ServerVersion::ask(client, &endpoint.url, limit).await;
        version.is_ok_and(|version| version.cluster.is_some_and(|least| least >= KEEPS_VALUES))
    }

    /// Reads what a refresh has stored, and repairs it.
    async fn stored(
        &self,
        refresh: &Refresh<'_>,
        event: &KeyEvent,
        index: Revision,
    ) -> Result<(KeyState, Revision), StoreError> {
        let ours = |event: &KeyEvent| {
            KeyState::Ours(Ownership { lease: 0, modified: Revision(event.node.modified_index) })
        };
        if event.node.value() == refresh.value {
            return Ok((ours(event), index));
        }
        tracing::warn!(
            key = %refresh.key,
            "the refresh has emptied the key; writing it again (is a member older than etcd 2.3?)"
        );
        let endpoint = self.shared.endpoints.choose().await?;
        self.shared.member.record_bare_refresh(&endpoint, false);
        let at = Revision(event.node.modified_index);
        match self.send_refresh(refresh, at, RefreshForm::Value).await? {
            (KeyReply::Done(event), headers) => Ok((ours(&event), headers.index)),
            (KeyReply::Failed(error), _) => Err(error.into()),
        }
    }
}
