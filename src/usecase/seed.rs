//! Sample data for development: three organizations, five people, ten configuration entries, and a key that is good only
//! where development trust holds. Writing it again changes nothing.

use serde::Serialize;
use serde_json::{Value, json};

use super::{Context, Error, Result};
use crate::audit::Event as AuditEvent;
use crate::authz::{KeyScope, Role};
use crate::domain::{DisplayName, Email, Identity, OrgId, Secret, Slug, TextError, Timestamp, UserId};
use crate::error::Kind;
use crate::store::repo::configs::ConfigEntry;
use crate::store::repo::identity::Written;
use crate::store::repo::keys::NewKey;
use crate::tenancy::{PlatformScope, operator_in};

/// The development key. It is in this repository for everybody to read, which is why it is refused everywhere but on the
/// loopback of a development machine.
pub const DEVELOPMENT_KEY: &str = "weft-dev-key";

/// The Entra tenant of the sample identities in the shape of App Service authentication.
pub const SAMPLE_TENANT: &str = "72f988bf-0000-4000-8000-00000000c0de";

const ORGANIZATIONS: [(&str, &str, bool); 3] = [
    ("contoso", "Contoso Ltd", true),
    ("fabrikam", "Fabrikam Inc", true),
    ("northwind", "Northwind Traders", false),
];

/// A sample person: short name, name, object id, whether a platform administrator, memberships.
type Person = (
    &'static str,
    &'static str,
    &'static str,
    bool,
    &'static [(&'static str, Role)],
);

const PEOPLE: [Person; 5] = [
    (
        "ann",
        "Ann Archer",
        "00000000-0000-4000-8000-0000000000a1",
        false,
        &[("contoso", Role::OrgAdmin), ("northwind", Role::OrgAdmin)],
    ),
    (
        "ben",
        "Ben Baker",
        "00000000-0000-4000-8000-0000000000b2",
        false,
        &[("contoso", Role::Manager)],
    ),
    (
        "cleo",
        "Cleo Carter",
        "00000000-0000-4000-8000-0000000000c3",
        false,
        &[("contoso", Role::User), ("fabrikam", Role::User)],
    ),
    (
        "dora",
        "Dora Diaz",
        "00000000-0000-4000-8000-0000000000d4",
        false,
        &[("fabrikam", Role::Viewer)],
    ),
    ("eve", "Eve Evans", "00000000-0000-4000-8000-0000000000e5", true, &[]),
];

fn config() -> [(Option<&'static str>, &'static str, Value, &'static str); 10] {
    [
        (
            None,
            "support.email",
            json!("support@weft.example"),
            "Where workflows send people who need help.",
        ),
        (
            None,
            "locale",
            json!("en-GB"),
            "Language and region where an organization has none of its own.",
        ),
        (
            None,
            "greeting",
            json!("Hello"),
            "What `hello` says where an organization has no greeting of its own.",
        ),
        (
            Some("contoso"),
            "departments",
            json!(["Engineering", "Finance", "Sales"]),
            "Choices of the data provider `departments`.",
        ),
        (
            Some("contoso"),
            "onboarding.licenses",
            json!(["office", "vpn"]),
            "Licenses of every new colleague.",
        ),
        (
            Some("contoso"),
            "onboarding.manager_approval",
            json!(true),
            "Whether a manager must agree.",
        ),
        (
            Some("contoso"),
            "time_zone",
            json!("Europe/Berlin"),
            "For dates that people read.",
        ),
        (Some("fabrikam"), "greeting", json!("Hi"), "What `hello` says here."),
        (
            Some("fabrikam"),
            "departments",
            json!(["Research", "Support"]),
            "Choices of the data provider `departments`.",
        ),
        (
            Some("fabrikam"),
            "time_zone",
            json!("America/New_York"),
            "For dates that people read.",
        ),
    ]
}

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seeded {
    /// Organizations, people, memberships, entries and keys that were made.
    pub created: usize,
    /// Those that were brought to the sample's values.
    pub changed: usize,
    /// Those that were as they should be.
    pub unchanged: usize,
    /// The organizations, with whether they are active.
    pub organizations: Vec<Value>,
    /// The people, with their identities and roles.
    pub people: Vec<Value>,
    /// How many configuration entries there are.
    pub config_entries: usize,
}

impl Seeded {
    fn count(&mut self, written: Written) {
        match written {
            Written::Created => self.created += 1,
            Written::Changed => self.changed += 1,
            Written::Unchanged => self.unchanged += 1,
        }
    }
}

fn bad_sample(error: &TextError) -> Error {
    Error::Request {
        kind: Kind::Internal,
        code: "internal",
        detail: format!("the sample data is wrong: {error}"),
        hint: None,
        findings: Vec::new(),
    }
}

/// Writes the sample data and says what it is doing.
///
/// # Errors
/// When storage fails; running it again goes on.
pub async fn seed(cx: &Context, platform: &PlatformScope, mut progress: impl FnMut(&str)) -> Result<Seeded> {
    let mut seeded = Seeded::default();
    for (id, name, active) in ORGANIZATIONS {
        progress(&format!("organization {id}"));
        let org = org(id);
        let slug: Slug = id.parse().map_err(|error| bad_sample(&error))?;
        let (written, _) = cx
            .identities
            .upsert_organization(platform, &org, &text(name)?, Some(&slug))
            .await?;
        seeded.count(written);
        cx.identities.set_organization_active(platform, &org, active).await?;
        seeded
            .organizations
            .push(json!({"id": id, "name": name, "active": active}));
    }
    for (short, name, object_id, administrator, memberships) in PEOPLE {
        progress(&format!("person {name}"));
        let id = person(short);
        let email: Email = format!("{short}@contoso.example")
            .parse()
            .map_err(|error| bad_sample(&error))?;
        let (written, _) = cx
            .identities
            .upsert_user(platform, &id, &text(name)?, Some(&email), administrator)
            .await?;
        seeded.count(written);
        let identities = [
            Identity::new("swa:aad", short).map_err(|error| bad_sample(&error))?,
            Identity::new(&format!("entra:{SAMPLE_TENANT}"), object_id).map_err(|error| bad_sample(&error))?,
        ];
        for identity in &identities {
            seeded.count(cx.identities.add_identity(platform, &id, identity).await?);
        }
        for (in_org, role) in memberships {
            let scope = operator_in(platform, &org(in_org));
            seeded.count(cx.identities.put_member(&scope, &id, *role).await?);
        }
        seeded.people.push(json!({
            "id": id,
            "name": name,
            "email": email.as_str(),
            "administrator": administrator,
            "staticWebAppsUserId": short,
            "entra": {"tenantId": SAMPLE_TENANT, "objectId": object_id},
            "roles": memberships.iter().map(|(org, role)| json!({"organization": org, "role": role})).collect::<Vec<_>>(),
        }));
    }
    progress("configuration");
    for (in_org, name, value, description) in config() {
        let entry = ConfigEntry {
            name: name.to_owned(),
            value,
            description: description.to_owned(),
            updated_at: cx.clock.now(),
        };
        let there = match in_org {
            Some(id) => cx.configs.list(&operator_in(platform, &org(id))).await?,
            None => cx.configs.list_platform(platform).await?,
        };
        seeded.config_entries += 1;
        match there.iter().find(|existing| existing.name == entry.name) {
            // What a developer has changed stays.
            Some(_) => seeded.count(Written::Unchanged),
            None => {
                match in_org {
                    Some(id) => cx.configs.put(&operator_in(platform, &org(id)), &entry).await?,
                    None => cx.configs.put_platform(platform, &entry).await?,
                }
                seeded.count(Written::Created);
            }
        }
    }
    progress("development key");
    let new = NewKey {
        name: text("weft-dev")?,
        organizations: Vec::new(),
        scopes: vec![KeyScope::All],
        expires_at: None,
        development: true,
    };
    let (made, _) = cx
        .keys
        .ensure(platform, &Secret::presented(DEVELOPMENT_KEY), new)
        .await?;
    seeded.count(if made { Written::Created } else { Written::Unchanged });
    if seeded.created + seeded.changed > 0 {
        let record = cx
            .audit
            .by(platform, AuditEvent::SeedApplied)
            .detail(&json!({"created": seeded.created, "changed": seeded.changed}));
        let linked = cx.audit.append(platform, record).await?;
        cx.audit.index(platform, &[linked]).await?;
    }
    Ok(seeded)
}

fn org(id: &str) -> OrgId {
    id.parse().expect("the sample's organization ids are right")
}

fn person(short: &str) -> UserId {
    UserId::derived(Timestamp::from_millis(0), &format!("sample:{short}"))
}

fn text(name: &str) -> Result<DisplayName> {
    name.parse().map_err(|error| bad_sample(&error))
}
