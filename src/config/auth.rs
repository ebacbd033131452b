//! Whom to believe about who is calling.

use serde::{Deserialize, Serialize};

use super::env_var as var;
use super::mode::Mode;
use super::read::Reader;

/// What the operator has put in front of the app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// Who sets the principal header.
    pub principal_source: PrincipalSource,
    /// Whether Azure says that its authentication is on.
    pub website_auth_enabled: bool,
}

/// Who sets the principal header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrincipalSource {
    /// Nobody: whoever sends it has made it up.
    None,
    /// Static Web Apps.
    Swa,
    /// App Service authentication.
    Easyauth,
}

impl Auth {
    pub(super) fn read(reader: &mut Reader<'_>, mode: &Mode) -> Self {
        let auth = Self {
            principal_source: reader
                .choice("auth.principalSource", &var::WEFT_PRINCIPAL_SOURCE)
                .unwrap_or(PrincipalSource::None),
            website_auth_enabled: reader.switch("auth.websiteAuthEnabled", &var::WEBSITE_AUTH_ENABLED),
        };
        if mode.on_azure && auth.principal_source != PrincipalSource::None && !auth.website_auth_enabled {
            let variable = &var::WEFT_PRINCIPAL_SOURCE;
            let message = format!(
                "`{}` believes a header that anybody can send while App Service authentication is off",
                variable.name
            );
            let hint = "turn authentication on for the app, which sets `WEBSITE_AUTH_ENABLED`, or remove the setting";
            reader.refuse(variable, "authentication_off", message, Some(hint.to_owned()));
        }
        auth
    }
}
