//! Organizations, users, identities, memberships and keys over the embedded store.

use std::sync::Arc;
use std::time::Duration;

use weft::authz::{KeyScope, Role};
use weft::clock::{Clock, Entropy, ManualClock};
use weft::domain::{DisplayName, Email, Identity, OrgId, Secret, Slug, Timestamp, UserId};
use weft::error::Coded;
use weft::store::key;
use weft::store::port::Ports;
use weft::store::repo::identity::{FACTS_FRESH, Identities, NewOrganization, NewUser, Written};
use weft::store::repo::keys::{KEY_FRESH, Keys, NewKey, OVERLAP, UNKNOWN_FRESH};
use weft::tenancy::{operator, operator_in};

use crate::authn_table::{make_key, ports, rotate_key};

struct Fixture {
    ports: Ports,
    clock: Arc<ManualClock>,
    entropy: Arc<Entropy>,
}

impl Fixture {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_795_219_200_000)));
        Self {
            ports: ports(clock.clone()).await,
            clock,
            entropy: Arc::new(Entropy::seeded(3)),
        }
    }

    /// As one more instance sees the same storage.
    fn identities(&self) -> Identities {
        Identities::new(self.ports.clone(), self.clock.clone(), self.entropy.clone())
    }

    fn keys(&self) -> Keys {
        Keys::new(self.ports.clone(), self.clock.clone(), self.entropy.clone())
    }
}

fn org(text: &str) -> OrgId {
    text.parse().unwrap()
}

fn name(text: &str) -> DisplayName {
    text.parse().unwrap()
}

fn slug(text: &str) -> Slug {
    text.parse().unwrap()
}

fn user(text: &str, email: Option<&str>) -> NewUser {
    NewUser {
        id: None,
        name: name(text),
        email: email.map(|e| e.parse().unwrap()),
        administrator: false,
    }
}

fn key(text: &str) -> NewKey {
    NewKey {
        name: name(text),
        organizations: vec![org("contoso")],
        scopes: vec![KeyScope::All],
        expires_at: None,
        development: false,
    }
}

#[tokio::test]
async fn organizations_are_seeded_renamed_and_never_made_twice() {
    let fixture = Fixture::new().await;
    let identities = fixture.identities();
    let platform = operator();
    let upsert = async |id: &str, called: &str, short: Option<&str>| {
        let short = short.map(slug);
        identities
            .upsert_organization(&platform, &org(id), &name(called), short.as_ref())
            .await
    };
    assert_eq!(
        upsert("contoso", "Contoso", Some("c")).await.unwrap().0,
        Written::Created
    );
    assert_eq!(
        upsert("contoso", "Contoso", Some("c")).await.unwrap().0,
        Written::Unchanged
    );
    assert_eq!(
        upsert("contoso", "Contoso Ltd", Some("c2")).await.unwrap().0,
        Written::Changed
    );
    assert!(
        identities
            .organization_by_slug(&platform, &slug("c"))
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(
        identities
            .organization_by_slug(&platform, &slug("c2"))
            .await
            .unwrap()
            .unwrap()
            .id,
        org("contoso")
    );
    assert_eq!(
        upsert("fabrikam", "F", Some("c2")).await.unwrap_err().code(),
        "slug_taken"
    );
    assert_eq!(upsert("fabrikam", "F", Some("c")).await.unwrap().0, Written::Created);
    assert_eq!(
        upsert("contoso", "Contoso Ltd", Some("c")).await.unwrap_err().code(),
        "slug_taken"
    );

    let again = NewOrganization {
        id: Some(org("contoso")),
        name: name("x"),
        slug: None,
    };
    assert_eq!(
        identities
            .create_organization(&platform, again)
            .await
            .unwrap_err()
            .code(),
        "organization_id_used"
    );
    let generated = NewOrganization {
        id: None,
        name: name("Generated"),
        slug: None,
    };
    let generated = identities.create_organization(&platform, generated).await.unwrap();

    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = identities.list_organizations(&platform, 1, after).await.unwrap();
        listed.extend(page.items.into_iter().map(|record| record.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut want = vec![org("contoso"), org("fabrikam"), generated.id];
    want.sort();
    assert_eq!(listed, want);
}

#[tokio::test]
async fn a_deleted_organization_leaves_a_tombstone_and_no_data() {
    let fixture = Fixture::new().await;
    let identities = fixture.identities();
    let platform = operator();
    let contoso = org("contoso");
    identities
        .upsert_organization(&platform, &contoso, &name("Contoso"), Some(&slug("c")))
        .await
        .unwrap();
    fixture
        .ports
        .tables
        .get(&key::org_table(&contoso), &key::members(), &key::only_row())
        .await
        .unwrap();
    assert!(identities.delete_organization(&platform, &contoso).await.unwrap());
    assert!(!identities.delete_organization(&platform, &contoso).await.unwrap());
    assert!(identities.organization(&contoso).await.unwrap().is_none());
    assert!(
        identities
            .get_organization(&platform, &contoso)
            .await
            .unwrap()
            .is_none()
    );
    let gone = fixture
        .ports
        .tables
        .get(&key::org_table(&contoso), &key::members(), &key::only_row())
        .await;
    assert_eq!(gone.unwrap_err().code(), "storage_not_prepared");

    let upsert = identities
        .upsert_organization(&platform, &contoso, &name("Contoso"), None)
        .await;
    assert_eq!(upsert.unwrap_err().code(), "organization_id_used");
    let active = identities.set_organization_active(&platform, &contoso, true).await;
    assert_eq!(active.unwrap_err().code(), "organization_not_found");
    let gone = fixture
        .ports
        .tables
        .get(&key::org_table(&contoso), &key::members(), &key::only_row())
        .await;
    assert!(gone.is_err(), "nothing makes the table again");
    let other = identities
        .upsert_organization(&platform, &org("other"), &name("O"), Some(&slug("c")))
        .await
        .unwrap();
    assert_eq!(other.0, Written::Created, "the slug is free again");
}

#[tokio::test]
async fn users_keep_their_address_to_themselves() {
    let fixture = Fixture::new().await;
    let identities = fixture.identities();
    let platform = operator();
    let ann = identities
        .create_user(&platform, user("Ann", Some("Ann@Example.com")))
        .await
        .unwrap();
    let taken = identities
        .create_user(&platform, user("Bob", Some("ann@example.COM")))
        .await
        .unwrap_err();
    assert_eq!(taken.code(), "email_taken");
    let email = |text: &str| text.parse::<Email>().unwrap();
    let found = identities
        .user_by_email(&platform, &email("ANN@example.com"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found, ann);

    let same = identities
        .upsert_user(&platform, &ann.id, &ann.name, ann.email.as_ref(), false)
        .await
        .unwrap();
    assert_eq!(same.0, Written::Unchanged);
    let moved = email("ann@new.example");
    let changed = identities
        .upsert_user(&platform, &ann.id, &ann.name, Some(&moved), true)
        .await
        .unwrap();
    assert_eq!(changed.0, Written::Changed);
    assert!(
        identities
            .user_by_email(&platform, &email("ann@example.com"))
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(
        identities.get_user(&platform, &ann.id).await.unwrap().unwrap(),
        changed.1
    );
    identities
        .create_user(&platform, user("Bob", Some("ann@example.com")))
        .await
        .unwrap();

    let case_only = email("Ann@new.example");
    identities
        .upsert_user(&platform, &ann.id, &ann.name, Some(&case_only), true)
        .await
        .unwrap();
    assert!(identities.user_by_email(&platform, &moved).await.unwrap().is_some());

    assert_eq!(
        identities.set_administrator(&platform, &ann.id, false).await.unwrap(),
        Written::Changed
    );
    assert_eq!(
        identities.set_administrator(&platform, &ann.id, false).await.unwrap(),
        Written::Unchanged
    );
    let nobody = UserId::generate(fixture.clock.now(), [9; 10]);
    assert_eq!(
        identities
            .set_user_active(&platform, &nobody, true)
            .await
            .unwrap_err()
            .code(),
        "user_not_found"
    );
}

#[tokio::test]
async fn an_address_of_a_user_who_was_never_written_becomes_free() {
    let fixture = Fixture::new().await;
    let identities = fixture.identities();
    let platform = operator();
    // What a crash between the guard and the user leaves behind.
    let ghost = UserId::generate(fixture.clock.now(), [8; 10]);
    let guard = weft::store::port::Properties::new()
        .with("user", ghost.as_str())
        .with("reserved_at", fixture.clock.now());
    let insert = vec![weft::store::port::Operation::Insert(key::only_row(), guard)];
    let table = key::PlatformTable::Identities.name();
    fixture
        .ports
        .tables
        .commit(&table, &key::email("ann@example.com"), insert)
        .await
        .unwrap();
    let early = identities
        .create_user(&platform, user("Ann", Some("ann@example.com")))
        .await;
    assert_eq!(early.unwrap_err().code(), "email_taken");
    fixture.clock.advance(Duration::from_secs(61));
    identities
        .create_user(&platform, user("Ann", Some("ann@example.com")))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_identity_is_of_one_user_and_a_user_has_several() {
    let fixture = Fixture::new().await;
    let identities = fixture.identities();
    let platform = operator();
    let ann = identities.create_user(&platform, user("Ann", None)).await.unwrap().id;
    let bob = identities.create_user(&platform, user("Bob", None)).await.unwrap().id;
    let first = Identity::new("swa:aad", "1").unwrap();
    let second = Identity::new("entra:t", "1").unwrap();
    assert_eq!(
        identities.add_identity(&platform, &ann, &first).await.unwrap(),
        Written::Created
    );
    assert_eq!(
        identities.add_identity(&platform, &ann, &first).await.unwrap(),
        Written::Unchanged
    );
    assert_eq!(
        identities.add_identity(&platform, &ann, &second).await.unwrap(),
        Written::Created
    );
    assert_eq!(
        identities
            .add_identity(&platform, &bob, &first)
            .await
            .unwrap_err()
            .code(),
        "identity_taken"
    );
    assert_eq!(identities.list_identities(&platform, &ann).await.unwrap().len(), 2);
    assert_eq!(identities.person(&second).await.unwrap().unwrap().id, ann);

    assert!(!identities.remove_identity(&platform, &bob, &first).await.unwrap());
    assert!(identities.remove_identity(&platform, &ann, &first).await.unwrap());
    assert!(!identities.remove_identity(&platform, &ann, &first).await.unwrap());
    assert!(identities.person(&first).await.unwrap().is_none());
    assert_eq!(identities.list_identities(&platform, &ann).await.unwrap(), [second]);
    assert_eq!(
        identities.add_identity(&platform, &bob, &first).await.unwrap(),
        Written::Created
    );
}

#[tokio::test]
async fn members_are_listed_where_they_are_members() {
    let fixture = Fixture::new().await;
    let identities = fixture.identities();
    let platform = operator();
    let ann = identities.create_user(&platform, user("Ann", None)).await.unwrap().id;
    for id in ["contoso", "fabrikam"] {
        identities
            .upsert_organization(&platform, &org(id), &name(id), None)
            .await
            .unwrap();
    }
    let contoso = operator_in(&platform, &org("contoso"));
    let fabrikam = operator_in(&platform, &org("fabrikam"));
    let put = async |role| identities.put_member(&contoso, &ann, role).await;
    assert_eq!(put(Role::User).await.unwrap(), Written::Created);
    assert_eq!(put(Role::User).await.unwrap(), Written::Unchanged);
    assert_eq!(put(Role::OrgAdmin).await.unwrap(), Written::Changed);
    assert_eq!(
        put(Role::Administrator).await.unwrap_err().code(),
        "role_not_for_members"
    );
    let nowhere = operator_in(&platform, &org("nowhere"));
    let unknown = identities.put_member(&nowhere, &ann, Role::User).await;
    assert_eq!(unknown.unwrap_err().code(), "organization_not_found");
    identities.put_member(&fabrikam, &ann, Role::Viewer).await.unwrap();

    let listed = identities.list_members(&contoso, 10, None).await.unwrap().items;
    assert_eq!(
        (listed.len(), &listed[0].user, listed[0].role),
        (1, &ann, Role::OrgAdmin)
    );
    let memberships = identities.list_memberships(&platform, &ann).await.unwrap();
    assert_eq!(memberships.len(), 2);
    assert_eq!(
        identities
            .membership(&ann, &org("contoso"))
            .await
            .unwrap()
            .unwrap()
            .role,
        Role::OrgAdmin
    );

    assert!(identities.remove_member(&contoso, &ann).await.unwrap());
    assert!(!identities.remove_member(&contoso, &ann).await.unwrap());
    assert!(identities.membership(&ann, &org("contoso")).await.unwrap().is_none());
    assert!(
        identities
            .list_members(&contoso, 10, None)
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert_eq!(
        identities.list_members(&fabrikam, 10, None).await.unwrap().items.len(),
        1
    );
}

#[tokio::test]
async fn another_instance_acts_on_old_facts_for_five_seconds_at_most() {
    let fixture = Fixture::new().await;
    let here = fixture.identities();
    let there = fixture.identities();
    let platform = operator();
    let contoso = org("contoso");
    here.upsert_organization(&platform, &contoso, &name("Contoso"), None)
        .await
        .unwrap();
    let ann = here.create_user(&platform, user("Ann", None)).await.unwrap().id;
    let identity = Identity::new("swa:aad", "ann").unwrap();
    here.add_identity(&platform, &ann, &identity).await.unwrap();
    assert!(there.person(&identity).await.unwrap().unwrap().active);
    assert!(there.organization(&contoso).await.unwrap().unwrap().active);

    here.set_user_active(&platform, &ann, false).await.unwrap();
    here.set_organization_active(&platform, &contoso, false).await.unwrap();
    assert!(!here.person(&identity).await.unwrap().unwrap().active, "here at once");
    assert!(
        !here.organization(&contoso).await.unwrap().unwrap().active,
        "here at once"
    );
    fixture.clock.advance(FACTS_FRESH - Duration::from_millis(1));
    assert!(there.person(&identity).await.unwrap().unwrap().active);
    fixture.clock.advance(Duration::from_millis(1));
    assert!(!there.person(&identity).await.unwrap().unwrap().active);
    assert!(!there.organization(&contoso).await.unwrap().unwrap().active);
}

#[tokio::test]
async fn a_key_is_found_by_its_text_only() {
    let fixture = Fixture::new().await;
    let keys = fixture.keys();
    let platform = operator();
    let made = make_key(&keys, &platform, key("ci")).await.unwrap();
    assert!(made.secret.is_generated());
    assert_eq!(*keys.find(&made.secret).await.unwrap().unwrap(), made.record);
    assert!(keys.find(&Secret::presented("x")).await.unwrap().is_none());
    assert!(
        keys.find(&Secret::presented(made.secret.hash()))
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(
        keys.get(&platform, &made.record.id).await.unwrap().unwrap(),
        made.record
    );
    assert_eq!(keys.list(&platform, 10, None).await.unwrap().items, [made.record]);

    let nothing = NewKey {
        scopes: Vec::new(),
        ..key("nothing")
    };
    assert_eq!(
        make_key(&keys, &platform, nothing).await.unwrap_err().code(),
        "key_malformed"
    );
    let every = NewKey {
        organizations: Vec::new(),
        ..key("every")
    };
    let every = make_key(&keys, &platform, every).await.unwrap();
    assert!(
        keys.get(&platform, &every.record.id)
            .await
            .unwrap()
            .unwrap()
            .organizations
            .is_empty()
    );
}

#[tokio::test]
async fn a_thought_up_key_is_for_development_only() {
    let fixture = Fixture::new().await;
    let keys = fixture.keys();
    let platform = operator();
    let weak = Secret::presented("letmein");
    assert_eq!(
        keys.ensure(&platform, &weak, key("weak")).await.unwrap_err().code(),
        "key_not_generated"
    );
    let development = || NewKey {
        development: true,
        ..key("dev")
    };
    let (made, record) = keys.ensure(&platform, &weak, development()).await.unwrap();
    assert!(made && record.development);
    assert_eq!(
        keys.ensure(&platform, &weak, development()).await.unwrap(),
        (false, record)
    );
}

#[tokio::test]
async fn a_revocation_reaches_other_instances_within_half_a_minute() {
    let fixture = Fixture::new().await;
    let here = fixture.keys();
    let there = fixture.keys();
    let platform = operator();
    let made = make_key(&here, &platform, key("ci")).await.unwrap();
    assert!(there.find(&made.secret).await.unwrap().unwrap().revoked_at.is_none());
    let first = here.revoke(&platform, &made.record.id).await.unwrap().revoked_at;
    assert!(
        here.find(&made.secret).await.unwrap().unwrap().revoked_at.is_some(),
        "here at once"
    );
    fixture.clock.advance(KEY_FRESH - Duration::from_millis(1));
    assert!(there.find(&made.secret).await.unwrap().unwrap().revoked_at.is_none());
    fixture.clock.advance(Duration::from_millis(1));
    assert!(there.find(&made.secret).await.unwrap().unwrap().revoked_at.is_some());
    assert_eq!(here.revoke(&platform, &made.record.id).await.unwrap().revoked_at, first);

    let late = Secret::generate([5; 32]);
    assert!(there.find(&late).await.unwrap().is_none());
    here.ensure(&platform, &late, key("late")).await.unwrap();
    assert!(there.find(&late).await.unwrap().is_none());
    fixture.clock.advance(UNKNOWN_FRESH);
    assert!(there.find(&late).await.unwrap().is_some());
}

#[tokio::test]
async fn a_rotated_key_ends_after_its_overlap() {
    let fixture = Fixture::new().await;
    let keys = fixture.keys();
    let platform = operator();
    let now = fixture.clock.now();
    let month = Duration::from_secs(30 * 86_400);
    let old = make_key(
        &keys,
        &platform,
        NewKey {
            expires_at: Some(now.plus(month)),
            ..key("ci")
        },
    )
    .await
    .unwrap();
    fixture.clock.advance(Duration::from_secs(86_400));
    let now = fixture.clock.now();
    let new = rotate_key(&keys, &platform, &old.record.id, OVERLAP).await.unwrap();
    assert!(!new.secret.same(&old.secret));
    assert_eq!(new.record.expires_at, Some(now.plus(month)), "the same lifetime again");
    assert_eq!(new.record.organizations, old.record.organizations);
    let was = keys.find(&old.secret).await.unwrap().unwrap();
    assert_eq!(
        (was.expires_at, &was.replaced_by),
        (Some(now.plus(OVERLAP)), &Some(new.record.id.clone()))
    );
    assert_eq!(
        rotate_key(&keys, &platform, &old.record.id, OVERLAP)
            .await
            .unwrap_err()
            .code(),
        "key_not_current"
    );
    keys.revoke(&platform, &new.record.id).await.unwrap();
    assert_eq!(
        rotate_key(&keys, &platform, &new.record.id, OVERLAP)
            .await
            .unwrap_err()
            .code(),
        "key_not_current"
    );
    let short = make_key(
        &keys,
        &platform,
        NewKey {
            expires_at: Some(now.plus(OVERLAP / 2)),
            ..key("short")
        },
    )
    .await
    .unwrap();
    rotate_key(&keys, &platform, &short.record.id, OVERLAP).await.unwrap();
    let was = keys.find(&short.secret).await.unwrap().unwrap();
    assert_eq!(
        was.expires_at, short.record.expires_at,
        "rotation never makes a key live longer"
    );
}

#[tokio::test]
async fn the_last_use_is_written_once_a_minute() {
    let fixture = Fixture::new().await;
    let keys = fixture.keys();
    let platform = operator();
    let made = make_key(&keys, &platform, key("ci")).await.unwrap();
    let start = fixture.clock.now();
    let last_use = async |want: Timestamp| {
        // The write happens beside the request; it is waited for by looking, not by time.
        loop {
            let last = keys
                .get(&platform, &made.record.id)
                .await
                .unwrap()
                .unwrap()
                .last_used_at;
            if last >= Some(want) {
                return last;
            }
            tokio::task::yield_now().await;
        }
    };
    keys.note_use(&made.record, &made.secret);
    assert_eq!(last_use(start).await, Some(start));
    fixture.clock.advance(Duration::from_secs(59));
    keys.note_use(&made.record, &made.secret);
    fixture.clock.advance(Duration::from_secs(1));
    let later = fixture.clock.now();
    keys.note_use(&made.record, &made.secret);
    assert_eq!(
        last_use(start.plus(Duration::from_millis(1))).await,
        Some(later),
        "nothing was written in between"
    );
}
