//! What a network is: its record, and how it is asked for.

use super::options;
use crate::error::{Error, Result};
use jiff::Timestamp;
use network::{Addressing, BridgeConfig, Range, Subnet};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The version of a network's record.
pub(super) const RECORD_VERSION: u32 = 1;

/// The default bridge's id: a name that never changes needs none that does.
pub const BRIDGE_ID: &str = "b21d9e0000000000000000000000000000000000000000000000000000000000";

/// The id of the host's network, as if it were one.
pub const HOST_ID: &str = "4057000000000000000000000000000000000000000000000000000000000000";

/// The id of having none.
pub const NONE_ID: &str = "0e00000000000000000000000000000000000000000000000000000000000000";

/// What makes a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// A bridge of the host.
    Bridge,
    /// Interfaces on one of the host's, with hardware addresses of their own.
    Macvlan,
    /// Interfaces on one of the host's, with its hardware address.
    Ipvlan,
    /// What plugins make, by the Container Network Interface.
    Cni,
    /// The host's own network.
    Host,
    /// None.
    Null,
}

impl Driver {
    /// The word Docker's clients know.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
            Self::Cni => "cni",
            Self::Host => "host",
            Self::Null => "null",
        }
    }
}

/// Addresses of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressRange {
    /// All of them, as `address/prefix`.
    pub subnet: String,
    /// The bridge's; None: the first.
    pub gateway: Option<IpAddr>,
    /// Those that are given away, as `address/prefix`; None: all.
    pub pool: Option<String>,
    /// Those that are others', by a name for each.
    pub reserved: BTreeMap<String, IpAddr>,
}

impl AddressRange {
    pub(super) fn parse(&self) -> Result<Range> {
        let subnet = |text: &str| text.parse::<Subnet>().map_err(Error::invalid);
        Ok(Range {
            subnet: subnet(&self.subnet)?,
            gateway: self.gateway,
            pool: self.pool.as_deref().map(subnet).transpose()?,
            reserved: self.reserved.values().copied().collect(),
        })
    }
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// [`RECORD_VERSION`] when it was written.
    pub(super) version: u32,
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name, unique.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
    /// What makes it.
    pub driver: Driver,
    /// Its addresses, of each family at most one range.
    pub ranges: Vec<AddressRange>,
    /// Nothing goes out of it, and nothing comes in.
    pub internal: bool,
    /// Docker's flag of that name: any container may join anyway.
    pub attachable: bool,
    /// Options of the driver, as they were given.
    pub options: BTreeMap<String, String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Network {
    /// Whether there always is one.
    pub fn is_predefined(&self) -> bool {
        matches!(self.id.as_str(), BRIDGE_ID | HOST_ID | NONE_ID)
    }

    /// Whether it has addresses of a family, as far as the engine knows: plugins decide for themselves.
    pub fn has_family(&self, is_ipv6: bool) -> bool {
        if self.driver == Driver::Cni {
            return true;
        }
        let of = |range: &AddressRange| range.subnet.contains(':') == is_ipv6;
        self.ranges.iter().any(of) || (!is_ipv6 && self.is_predefined())
    }

    pub(super) fn predefined(name: &str, id: &str, driver: Driver) -> Self {
        Self {
            version: RECORD_VERSION,
            id: id.to_owned(),
            name: name.to_owned(),
            created: Timestamp::UNIX_EPOCH,
            driver,
            ranges: Vec::new(),
            internal: false,
            attachable: false,
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
        }
    }

    pub(super) fn bridge_config(&self) -> Result<BridgeConfig> {
        let mut config = BridgeConfig {
            ipv4: Addressing::None,
            internal: self.internal,
            ..BridgeConfig::new(format!("br-{}", &self.id[..12]))
        };
        for range in &self.ranges {
            let range = range.parse()?;
            let place = if range.subnet.is_ipv6() {
                &mut config.ipv6
            } else {
                &mut config.ipv4
            };
            if *place != Addressing::None {
                return Err(Error::invalid(
                    "the bridge driver has one subnet of each family",
                ));
            }
            *place = Addressing::Fixed(range);
        }
        match self.driver {
            Driver::Macvlan | Driver::Ipvlan => {
                options::apply_uplink(&self.options, self.driver, &self.id, &mut config)?;
            }
            _ => options::apply(&self.options, &mut config)?,
        }
        Ok(config)
    }
}

/// A request for a network.
#[derive(Debug, Clone, Default)]
pub struct NetworkRequest {
    /// Its name.
    pub name: String,
    /// Empty for `bridge`, or another driver's name.
    pub driver: String,
    /// Whether it has IPv4.
    pub ipv4: bool,
    /// Whether it has IPv6.
    pub ipv6: bool,
    /// Its addresses; of a family that is missing, free ones are chosen.
    pub ranges: Vec<AddressRange>,
    /// Nothing goes out of it, and nothing comes in.
    pub internal: bool,
    /// As [`Network::attachable`].
    pub attachable: bool,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// The addresses of a network that has them.
pub(super) fn ranges_of(config: &BridgeConfig) -> Vec<AddressRange> {
    let ranges = [&config.ipv4, &config.ipv6].into_iter();
    let ranges = ranges.filter_map(|addressing| match addressing {
        Addressing::Fixed(range) => Some(AddressRange {
            subnet: range.subnet.to_string(),
            gateway: Some(range.gateway()),
            pool: range.pool.map(|pool| pool.to_string()),
            reserved: BTreeMap::new(),
        }),
        _ => None,
    });
    ranges.collect()
}

/// Whether two ranges are of one subnet, however it is written.
pub(super) fn is_same_subnet(a: &AddressRange, b: &AddressRange) -> bool {
    let parse = |range: &AddressRange| range.subnet.parse::<Subnet>().ok();
    parse(a).is_some() && parse(a) == parse(b)
}
