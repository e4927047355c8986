//! Limits of what a container's interfaces receive and send.

use super::endpoint::to_network;
use super::{Driver, failed};
use crate::Engine;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::model::{Attachment, Endpoint, Limits, NetworkMode, NetworkRate};
use network::Rate;

fn to_rate(rate: Option<NetworkRate>) -> Rate {
    let rate = rate.unwrap_or_default();
    Rate {
        receive: rate.receive_bytes,
        send: rate.send_bytes,
    }
}

impl Engine {
    /// Checks a limit of a container with this network mode and these connections.
    pub(crate) fn check_rate(
        &self,
        limits: &Limits,
        mode: &NetworkMode,
        attachments: &[Attachment],
    ) -> Result<()> {
        let rate = to_rate(limits.network_rate);
        if rate == Rate::default() {
            return Ok(());
        }
        if matches!(
            mode,
            NetworkMode::None | NetworkMode::Host | NetworkMode::Container(_)
        ) {
            return Err(Error::invalid(
                "conflicting options: a network rate and the network mode: the container has no interface of its own",
            ));
        }
        for attachment in attachments {
            let network = self.network(&attachment.network)?;
            if network.driver != Driver::Bridge {
                return Err(Error::unsupported(format!(
                    "a network rate on {}, a {} network, is not supported: what passes is limited at the host's end of an interface, and there is none",
                    network.name,
                    network.driver.as_str()
                )));
            }
        }
        rate.check()
            .map_err(|failure| Error::invalid(failure.to_string()))
    }

    /// Bounds one endpoint that is connected as the container's limits say.
    pub(super) fn bound_endpoint(
        &self,
        container: &Container,
        attachment: &Attachment,
        endpoint: &Endpoint,
    ) -> Result<()> {
        let rate = to_rate(container.snapshot().limits().network_rate);
        self.set_rate(attachment, endpoint, rate)
    }

    /// Bounds all endpoints of a container that runs.
    pub(crate) fn bound_endpoints(
        &self,
        container: &Container,
        rate: Option<NetworkRate>,
    ) -> Result<()> {
        for (attachment, endpoint) in container.state().endpoints() {
            self.set_rate(attachment, endpoint, to_rate(rate))?;
        }
        Ok(())
    }

    fn set_rate(&self, attachment: &Attachment, endpoint: &Endpoint, rate: Rate) -> Result<()> {
        if endpoint.plugins.is_some() {
            // It has been checked that none is asked for.
            return Ok(());
        }
        let known = to_network(attachment, endpoint);
        let bound = self.0.network.bound(&attachment.network, &known, rate);
        bound.map_err(|failure| failed("limit the container's network", failure))
    }
}
