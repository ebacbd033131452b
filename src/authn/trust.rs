//! When `X-MS-CLIENT-PRINCIPAL` may be believed, and when development's shortcuts hold.
//!
//! The header proves nothing by itself: where no platform authentication is switched on, nothing removes a forged one. So the
//! operator says what stands in front, Azure must say the same, and everything else is for one developer on one machine.

use std::net::IpAddr;

use super::client_principal::Shape;

/// `WEFT_PRINCIPAL_SOURCE`: what signs users in, in front of this installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PrincipalSource {
    /// Nothing: the header is refused.
    #[default]
    None,
    /// Static Web Apps.
    Swa,
    /// App Service authentication.
    Easyauth,
}

impl PrincipalSource {
    /// From `none`, `swa` or `easyauth`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "none" => Some(Self::None),
            "swa" => Some(Self::Swa),
            "easyauth" => Some(Self::Easyauth),
            _ => None,
        }
    }
}

/// What is known of the installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrustSettings {
    /// What the operator put in front.
    pub principal_source: PrincipalSource,
    /// Whether `WEBSITE_AUTH_ENABLED` says that the platform authenticates.
    pub website_auth_enabled: bool,
    /// Whether `WEBSITE_INSTANCE_ID` or `CONTAINER_NAME` is there.
    pub on_azure: bool,
    /// Whether this is a development installation.
    pub development: bool,
}

impl TrustSettings {
    /// What makes these settings useless, for the start to refuse them rather than every request.
    #[must_use]
    pub fn problem(&self) -> Option<&'static str> {
        if self.on_azure && self.principal_source != PrincipalSource::None && !self.website_auth_enabled {
            return Some(
                "`WEFT_PRINCIPAL_SOURCE` is set, but App Service authentication is off (`WEBSITE_AUTH_ENABLED`)",
            );
        }
        None
    }
}

/// Whether `WEBSITE_AUTH_ENABLED` says yes: `True` in any case, or `1`.
#[must_use]
pub fn says_enabled(value: &str) -> bool {
    value.eq_ignore_ascii_case("true") || value == "1"
}

/// What is known of one request's way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayIn {
    /// Whether the listener is bound to the loopback.
    pub listener_loopback: bool,
    /// The other end of the connection.
    pub peer: IpAddr,
    /// Whether `Host` is there and names this machine; `None` when it is missing.
    pub host_local: Option<bool>,
    /// The same of `X-Forwarded-Host`, every value of it.
    pub forwarded_host_local: Option<bool>,
}

impl WayIn {
    /// A browser that is led to this machine under a foreign name still sends that name as `Host`, and may send any
    /// `X-Forwarded-Host`; so neither may be foreign, and one must be there.
    fn local(&self) -> bool {
        let names = [self.host_local, self.forwarded_host_local];
        self.listener_loopback
            && self.peer.to_canonical().is_loopback()
            && names.iter().any(Option::is_some)
            && !names.contains(&Some(false))
    }
}

/// What may be believed of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trust {
    /// A principal of this shape, by the operator's word.
    pub shape: Option<Shape>,
    /// Both shapes, and development keys.
    pub development: bool,
    /// Why no principal is believed, for the caller; empty when one is.
    pub why_not: &'static str,
}

impl Trust {
    /// Whether a principal of this shape is believed.
    #[must_use]
    pub fn covers(&self, shape: Shape) -> bool {
        self.development || self.shape == Some(shape)
    }

    /// Whether a principal of any shape is.
    #[must_use]
    pub const fn any(&self) -> bool {
        self.development || self.shape.is_some()
    }
}

/// What may be believed of a request that came in this way.
#[must_use]
pub fn trust(settings: &TrustSettings, way: &WayIn) -> Trust {
    let named = match settings.principal_source {
        PrincipalSource::None => None,
        PrincipalSource::Swa => Some(Shape::Swa),
        PrincipalSource::Easyauth => Some(Shape::Easyauth),
    };
    let shape = named.filter(|_| !settings.on_azure || settings.website_auth_enabled);
    let development = settings.development && !settings.on_azure && way.local();
    let why_not = if shape.is_some() || development {
        ""
    } else if named.is_some() {
        "`X-MS-CLIENT-PRINCIPAL` is not believed: App Service authentication is off (`WEBSITE_AUTH_ENABLED`)"
    } else if settings.development && !settings.on_azure {
        "`X-MS-CLIENT-PRINCIPAL` is believed in development only from this machine, under the name `localhost`"
    } else {
        "`X-MS-CLIENT-PRINCIPAL` is not believed: `WEFT_PRINCIPAL_SOURCE` is `none`"
    };
    Trust {
        shape,
        development,
        why_not,
    }
}

/// Whether a `Host` names this machine: `localhost`, 127.0.0.0/8 or `[::1]`, with or without a port.
#[must_use]
pub fn is_local_host(host: &str) -> bool {
    let host = host.trim();
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, port)) => (name, port),
            None => return false,
        },
        None => match host.find(':') {
            Some(at) => host.split_at(at),
            None => (host, ""),
        },
    };
    let port_good = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|digits| digits.parse::<u16>().is_ok());
    let bracketed = host.starts_with('[');
    let name_good = match name.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => !bracketed && address.is_loopback(),
        Ok(IpAddr::V6(address)) => bracketed && address.is_loopback(),
        Err(_) => !bracketed && name.eq_ignore_ascii_case("localhost"),
    };
    port_good && name_good
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_local() {
        for good in [
            "localhost",
            "LOCALHOST:7071",
            "127.0.0.1",
            "127.0.0.1:80",
            "127.9.9.9",
            "[::1]",
            "[::1]:7071",
        ] {
            assert!(is_local_host(good), "{good}");
        }
        for bad in [
            "",
            "localhost.evil.com",
            "evil.com",
            "localhost:7071@evil.com",
            "localhost:x",
            "127.0.0.1.nip.io",
            "[127.0.0.1]",
            "[::1",
            "::1",
            "0.0.0.0",
            "10.0.0.1",
            "localhost, evil.com",
        ] {
            assert!(!is_local_host(bad), "{bad}");
        }
    }

    #[test]
    fn every_condition_of_development_trust_is_needed() {
        let settings = TrustSettings {
            development: true,
            ..TrustSettings::default()
        };
        let way = WayIn {
            listener_loopback: true,
            peer: "::ffff:127.0.0.1".parse().unwrap(),
            host_local: Some(true),
            forwarded_host_local: None,
        };
        assert!(trust(&settings, &way).development);
        assert!(
            trust(
                &settings,
                &WayIn {
                    host_local: None,
                    forwarded_host_local: Some(true),
                    ..way.clone()
                }
            )
            .development
        );
        for broken in [
            WayIn {
                listener_loopback: false,
                ..way.clone()
            },
            WayIn {
                peer: "10.0.0.1".parse().unwrap(),
                ..way.clone()
            },
            WayIn {
                host_local: Some(false),
                ..way.clone()
            },
            WayIn {
                host_local: Some(false),
                forwarded_host_local: Some(true),
                ..way.clone()
            },
            WayIn {
                forwarded_host_local: Some(false),
                ..way.clone()
            },
            WayIn {
                host_local: None,
                ..way.clone()
            },
        ] {
            assert!(!trust(&settings, &broken).any(), "{broken:?}");
        }
        assert!(
            !trust(
                &TrustSettings {
                    on_azure: true,
                    ..settings
                },
                &way
            )
            .any()
        );
        assert!(
            !trust(
                &TrustSettings {
                    development: false,
                    ..settings
                },
                &way
            )
            .any()
        );
    }

    #[test]
    fn on_azure_the_platform_must_say_the_same() {
        let way = WayIn {
            listener_loopback: false,
            peer: "10.0.0.1".parse().unwrap(),
            host_local: Some(false),
            forwarded_host_local: None,
        };
        for (source, shape) in [
            (PrincipalSource::Swa, Shape::Swa),
            (PrincipalSource::Easyauth, Shape::Easyauth),
        ] {
            let off = TrustSettings {
                principal_source: source,
                on_azure: true,
                ..TrustSettings::default()
            };
            assert!(!trust(&off, &way).any());
            assert!(off.problem().is_some());
            let on = TrustSettings {
                website_auth_enabled: true,
                ..off
            };
            assert_eq!(trust(&on, &way).shape, Some(shape));
            assert!(on.problem().is_none());
        }
        let none = TrustSettings {
            on_azure: true,
            website_auth_enabled: true,
            ..TrustSettings::default()
        };
        assert!(!trust(&none, &way).any(), "the platform's word alone is not enough");
    }
}
