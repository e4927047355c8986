//! `/networks`.

use crate::http::{Error, Reply, empty, json, json_with, read_json};
use crate::older;
use crate::server::Call;
use crate::version::Version;
use crate::wire;
use api_types as types;
use engine::model::Snapshot;
use engine::{AddressRange, Network, NetworkRequest};
use http::{Method, StatusCode};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::task::block_in_place;

pub(crate) async fn route(method: &Method, segments: &[&str], call: Call<'_>) -> Reply {
    match (method, segments) {
        (&Method::GET, []) => list(&call),
        (&Method::GET, [key]) => inspect(&call, key),
        (&Method::POST, ["create"]) => create(call).await,
        (&Method::POST, ["prune"]) => crate::prune::networks(&call),
        (&Method::POST, [key, "connect"]) => connect(call, key).await,
        (&Method::POST, [key, "disconnect"]) => disconnect(call, key).await,
        (&Method::DELETE, [key]) => {
            block_in_place(|| call.engine.remove_network(key))?;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        (&Method::OPTIONS, _) => Ok(empty(StatusCode::OK)),
        _ => Err(Error::not_found("page not found")),
    }
}

fn list(call: &Call<'_>) -> Reply {
    let filters = call
        .query
        .filters(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
    if let Some(kind) = filters
        .get("type")
        .find(|kind| !matches!(*kind, "builtin" | "custom"))
    {
        return Err(Error::bad_request(format!(
            "invalid filter: 'type'='{kind}'"
        )));
    }
    let networks = call.engine.networks();
    let wanted = networks
        .iter()
        .filter(|network| matches(call, network, &filters));
    // A list tells of members before 1.28 alone.
    let with_members = call.version < Version::of(28);
    let show = |network: &Arc<Network>| match with_members {
        true => with_members_of(call, network),
        false => describe(network),
    };
    let networks: Vec<_> = wanted.map(show).collect();
    json(&networks)
}

fn matches(call: &Call<'_>, network: &Network, filters: &types::Filters) -> bool {
    let any = |name: &str, matches: &dyn Fn(&str) -> bool| {
        !filters.contains(name) || filters.get(name).any(matches)
    };
    let labels = filters
        .get("label")
        .all(|filter| match filter.split_once('=') {
            Some((name, value)) => network.labels.get(name).is_some_and(|label| label == value),
            None => network.labels.contains_key(filter),
        });
    let predefined = network.is_predefined();
    let dangling = |value: &str| {
        let unused = !predefined && call.engine.network_users(&network.id).is_empty();
        matches!(value, "1" | "true") == unused
    };
    labels
        && any("name", &|part| network.name.contains(part))
        && any("id", &|prefix| network.id.starts_with(prefix))
        && any("driver", &|driver| network.driver.as_str() == driver)
        && any("scope", &|scope| scope == "local")
        && any("type", &|kind| (kind == "builtin") == predefined)
        && any("dangling", &dangling)
}

/// A network as Docker shows it in lists.
fn describe(network: &Network) -> types::Network {
    let pool = |range: &AddressRange| types::IpamConfig {
        subnet: range.subnet.clone(),
        ip_range: range.pool.clone().unwrap_or_default(),
        gateway: range
            .gateway
            .map(|gateway| gateway.to_string())
            .unwrap_or_default(),
        auxiliary_addresses: texts(&range.reserved),
    };
    types::Network {
        name: network.name.clone(),
        id: network.id.clone(),
        created: network.created.to_string(),
        scope: "local".to_owned(),
        driver: network.driver.as_str().to_owned(),
        enable_ipv4: network.has_family(false),
        enable_ipv6: network.has_family(true),
        ipam: types::Ipam {
            driver: "default".to_owned(),
            options: None,
            config: Some(network.ranges.iter().map(pool).collect()),
        },
        internal: network.internal,
        attachable: network.attachable,
        containers: Some(BTreeMap::new()),
        options: Some(network.options.clone()),
        labels: Some(network.labels.clone()),
        ..types::Network::default()
    }
}

fn texts(addresses: &BTreeMap<String, IpAddr>) -> BTreeMap<String, String> {
    let text = |(name, address): (&String, &IpAddr)| (name.clone(), address.to_string());
    addresses.iter().map(text).collect()
}

fn inspect(call: &Call<'_>, key: &str) -> Reply {
    if let Some(scope) = call.query.get("scope").filter(|scope| *scope != "local") {
        return Err(Error::not_found(format!(
            "network {key} not found in scope {scope}"
        )));
    }
    let network = call.engine.network(key)?;
    json(&with_members_of(call, &network))
}

fn with_members_of(call: &Call<'_>, network: &Network) -> types::Network {
    let members = call.engine.list();
    let members = members
        .iter()
        .filter_map(|container| member(network, container));
    types::Network {
        containers: Some(members.collect()),
        ..describe(network)
    }
}

/// A container that is on a network now.
fn member(network: &Network, container: &Snapshot) -> Option<(String, types::EndpointResource)> {
    use engine::model::NetworkMode;
    let mut endpoints = container.state.endpoints();
    let own = endpoints.find(|(attachment, _)| attachment.network == network.id);
    let mut resource = types::EndpointResource {
        name: container.name.clone(),
        ..types::EndpointResource::default()
    };
    let by_mode = match network.id.as_str() {
        engine::HOST_ID => container.spec.network.mode == NetworkMode::Host,
        engine::NONE_ID => container.spec.network.mode == NetworkMode::None,
        _ => false,
    };
    match own {
        Some((_, endpoint)) => {
            let address = |is_ipv6| match endpoint.place(is_ipv6) {
                Some(place) => format!("{}/{}", place.address, place.prefix),
                None => String::new(),
            };
            resource.endpoint_id.clone_from(&endpoint.id);
            resource.mac_address = wire::mac_name(endpoint.mac);
            resource.ipv4_address = address(false);
            resource.ipv6_address = address(true);
        }
        None if by_mode && container.state.phase.is_running() => {}
        None => return None,
    }
    Some((container.spec.id.clone(), resource))
}

async fn create(call: Call<'_>) -> Reply {
    let mut body: types::NetworkCreateRequest = read_json(call.request).await?;
    { call.version.lacks(older::NETWORK) }.for_each(|undo| undo(&mut body));
    let network = block_in_place(|| call.engine.create_network(read(body)?).map_err(Error::from))?;
    json_with(
        StatusCode::CREATED,
        &types::NetworkCreateResponse {
            id: network.id.clone(),
            warning: String::new(),
        },
    )
}

fn read(body: types::NetworkCreateRequest) -> Result<NetworkRequest, Error> {
    let ipam = body.ipam.unwrap_or_default();
    let has_ipam_options = ipam.options.is_some_and(|options| !options.is_empty());
    let config_from = body
        .config_from
        .is_some_and(|from| !from.network.is_empty());
    let unsupported = [
        (body.ingress, "Swarm's routing mesh (--ingress)"),
        (
            body.config_only,
            "a configuration for others (--config-only)",
        ),
        (
            config_from,
            "another network's configuration (--config-from)",
        ),
        (
            !matches!(body.scope.as_str(), "" | "local"),
            "a scope other than local (--scope)",
        ),
        (
            !matches!(ipam.driver.as_str(), "" | "default"),
            "a driver of address management (--ipam-driver)",
        ),
        (
            has_ipam_options,
            "an option of address management (--ipam-opt)",
        ),
    ];
    if let Some((_, what)) = unsupported.iter().find(|(asked, _)| *asked) {
        return Err(Error::unsupported(what));
    }
    let ranges = ipam.config.unwrap_or_default();
    // A pool that says nothing is one that is chosen.
    let ranges = ranges
        .iter()
        .filter(|range| **range != types::IpamConfig::default());
    Ok(NetworkRequest {
        name: body.name,
        driver: body.driver,
        ipv4: body.enable_ipv4.unwrap_or(true),
        ipv6: body.enable_ipv6.unwrap_or(false),
        ranges: ranges.map(range).collect::<Result<_, _>>()?,
        internal: body.internal,
        attachable: body.attachable,
        options: body.options.unwrap_or_default(),
        labels: body.labels.unwrap_or_default(),
    })
}

fn range(config: &types::IpamConfig) -> Result<AddressRange, Error> {
    if config.subnet.is_empty() {
        return Err(Error::bad_request(
            "invalid network config: a gateway, a range or further addresses need a subnet",
        ));
    }
    let reserved = config
        .auxiliary_addresses
        .iter()
        .map(|(name, text)| Ok((name.clone(), address("auxiliary address", text)?)));
    Ok(AddressRange {
        subnet: config.subnet.clone(),
        gateway: match config.gateway.as_str() {
            "" => None,
            // Some clients give it with the prefix.
            text => Some(address("gateway", text.split('/').next().unwrap_or(text))?),
        },
        pool: Some(config.ip_range.clone()).filter(|text| !text.is_empty()),
        reserved: reserved.collect::<Result<_, Error>>()?,
    })
}

fn address(what: &str, text: &str) -> Result<IpAddr, Error> {
    let parsed = text.parse();
    parsed.map_err(|_| Error::bad_request(format!("invalid {what}: {text:?} is no IP address")))
}

async fn connect(call: Call<'_>, key: &str) -> Reply {
    let body: types::NetworkConnectRequest = read_json(call.request).await?;
    let wish = wire::connections::endpoint_wish(&body.endpoint_config.unwrap_or_default())?;
    call.engine
        .connect_network(key, &body.container, wish)
        .await?;
    Ok(empty(StatusCode::OK))
}

async fn disconnect(call: Call<'_>, key: &str) -> Reply {
    let body: types::NetworkDisconnectRequest = read_json(call.request).await?;
    call.engine
        .disconnect_network(key, &body.container, body.force)
        .await?;
    Ok(empty(StatusCode::OK))
}
