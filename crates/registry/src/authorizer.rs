//! Requests with the authorisation that a registry asks for: challenges met, tokens fetched and kept.
//!
//! Sources: as of `auth`, whose types these are.

use crate::auth::{Challenge, Credentials, TokenAnswer, TokenKey};
use crate::client::Shared;
use crate::config::{Address, Endpoint};
use crate::error::{Error, Result};
use crate::transport::{Answer, Call, bytes_body, protocol};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, StatusCode};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of what a token issuer answers.
const TOKEN_BYTES_MAX: u64 = 1 << 20;
/// Who asks, towards token issuers.
const CLIENT_ID: &str = "hull";

/// Sends requests to one endpoint with the authorisation it asks for.
pub(crate) struct Authorizer<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) credentials: &'a Credentials,
    /// What the credentials are to be good for, as token issuers write it; empty to log in.
    pub(crate) scope: String,
    /// What access is wanted to.
    pub(crate) what: &'a str,
}

impl Authorizer<'_> {
    fn key(&self) -> TokenKey {
        (
            self.endpoint.address.to_string(),
            self.credentials.clone(),
            self.scope.clone(),
        )
    }

    /// Adds what is known to be needed.
    pub(crate) fn authorize(&self, call: &Call) -> Call {
        match self.shared.tokens.get(&self.key()) {
            Some(header) => call.clone().header(AUTHORIZATION, &header),
            None => call.clone(),
        }
    }

    /// Sends a request, and again when the registry has said what it wants. Returns an identity token when one was given.
    pub(crate) async fn send(&self, call: &Call, body: &Bytes) -> Result<(Answer, Option<String>)> {
        let transport = &self.shared.transport;
        let answer = transport
            .send(self.endpoint, self.authorize(call), body)
            .await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok((self.allowed(answer).await?, None));
        }
        // What was known has expired.
        self.shared.tokens.forget(&self.key());
        let identity = self.meet(answer).await?;
        let answer = transport
            .send(self.endpoint, self.authorize(call), body)
            .await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            self.shared.tokens.forget(&self.key());
            return Err(self.denied(answer).await);
        }
        Ok((self.allowed(answer).await?, identity))
    }

    async fn allowed(&self, answer: Answer) -> Result<Answer> {
        if answer.status() == StatusCode::FORBIDDEN {
            return Err(self.denied(answer).await);
        }
        Ok(answer)
    }

    async fn denied(&self, answer: Answer) -> Error {
        // An answer to HEAD says nothing.
        let default = match answer.status() {
            StatusCode::UNAUTHORIZED => "unauthorized: authentication required",
            _ => "denied: requested access to the resource is denied",
        };
        self.refused(answer.message_or(default).await)
    }

    fn refused(&self, message: String) -> Error {
        Error::Denied {
            repository: self.what.to_owned(),
            message,
        }
    }

    /// Gets the authorisation that a 401 asks for.
    async fn meet(&self, answer: Answer) -> Result<Option<String>> {
        let values = answer
            .response
            .headers()
            .get_all(http::header::WWW_AUTHENTICATE);
        let challenge = Challenge::parse(values.iter().filter_map(|value| value.to_str().ok()));
        let (header, lifetime, identity) = match (challenge, self.credentials) {
            (Some(Challenge::Basic), Credentials::Anonymous) => {
                return Err(self.refused("no basic auth credentials".to_owned()));
            }
            (_, Credentials::Bearer(_)) | (Some(Challenge::Basic), Credentials::Basic { .. }) => (
                self.credentials.header(),
                Duration::from_secs(u64::from(u32::MAX)),
                None,
            ),
            (
                Some(Challenge::Bearer {
                    realm,
                    service,
                    scope,
                }),
                _,
            ) => {
                let token = self.token(&realm, &service, &scope).await?;
                let identity = Some(token.refresh_token.clone()).filter(|token| !token.is_empty());
                (
                    Some(format!("Bearer {}", token.token())),
                    token.lifetime(),
                    identity,
                )
            }
            _ => (None, Duration::ZERO, None),
        };
        let Some(header) = header else {
            return Err(self.denied(answer).await);
        };
        answer.discard().await;
        self.shared.tokens.put(self.key(), header, lifetime);
        Ok(identity)
    }

    /// Asks a token issuer.
    async fn token(&self, realm: &str, service: &str, scope: &str) -> Result<TokenAnswer> {
        // The issuer gets the password: it has to be somebody, and where the registry is safe, too.
        let issuer: Address = { realm.split(['?', '#']).next().unwrap_or_default() }.parse()?;
        let endpoint = Endpoint {
            mirror: false,
            ..self.endpoint.clone()
        };
        if self.endpoint.address.tls && self.endpoint.verified && !issuer.tls {
            let call = Call::new(Method::GET, realm.to_owned());
            return Err(protocol(
                &call,
                "wants credentials sent without encryption".to_owned(),
            ));
        }
        let (call, body) = self.token_call(realm, service, scope);
        let transport = &self.shared.transport;
        let answer = match body {
            Some(form) => {
                transport
                    .send_body(&endpoint, &call, bytes_body(form))
                    .await?
            }
            None => transport.send(&endpoint, call, &Bytes::new()).await?,
        };
        if matches!(
            answer.status(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
        ) {
            return Err(self.denied(answer).await);
        }
        if !answer.status().is_success() {
            return Err(answer.into_error().await);
        }
        let call = answer.call.clone();
        let body = answer.bytes(TOKEN_BYTES_MAX).await?;
        let token: TokenAnswer = serde_json::from_slice(&body)
            .map_err(|error| protocol(&call, format!("sends no token: {error}")))?;
        if token.token().is_empty() {
            return Err(protocol(&call, "sends no token".to_owned()));
        }
        Ok(token)
    }

    /// The request for a token, and the form in its body: an identity token is exchanged by a form, all else is a query.
    fn token_call(&self, realm: &str, service: &str, scope: &str) -> (Call, Option<Bytes>) {
        let logging_in = self.scope.is_empty();
        let scope = if scope.is_empty() {
            self.scope.as_str()
        } else {
            scope
        };
        let mut fields = form_urlencoded::Serializer::new(String::new());
        if !service.is_empty() {
            fields.append_pair("service", service);
        }
        if let Credentials::Identity(token) = self.credentials {
            fields.append_pair("scope", scope);
            fields.append_pair("grant_type", "refresh_token");
            fields.append_pair("client_id", CLIENT_ID);
            fields.append_pair("refresh_token", token);
            let call = Call::new(Method::POST, realm.to_owned())
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            return (call, Some(fields.finish().into()));
        }
        for one in scope.split(' ').filter(|one| !one.is_empty()) {
            fields.append_pair("scope", one);
        }
        if let Credentials::Basic { user, .. } = self.credentials {
            fields.append_pair("account", user);
            fields.append_pair("client_id", CLIENT_ID);
            if logging_in {
                fields.append_pair("offline_token", "true");
            }
        }
        let separator = if realm.contains('?') { '&' } else { '?' };
        let mut call = Call::new(
            Method::GET,
            format!("{realm}{separator}{}", fields.finish()),
        );
        if let Some(header) = self.credentials.header() {
            call = call.header(AUTHORIZATION, &header);
        }
        (call, None)
    }
}
