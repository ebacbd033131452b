//! The policy as a table that people review, and what must hold of it whatever it says.

use weft::authz::{Action, Extent, KeyScope, Resource, Role, matrix, permitted, permitted_to_key};

#[test]
fn the_policy_is_the_file_that_was_reviewed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/authz-matrix.txt");
    let reviewed = std::fs::read_to_string(path).unwrap();
    assert_eq!(
        reviewed,
        matrix(),
        "the policy and docs/authz-matrix.txt differ: when the change is meant, run `weft emit` and have the file reviewed"
    );
}

#[test]
fn the_printed_table_says_what_the_policy_says() {
    let printed = matrix();
    let mut lines = printed.lines();
    let head: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(head[..2], ["resource", "action"]);
    assert_eq!(
        head[2..],
        Role::ALL.iter().map(|role| role.as_str()).collect::<Vec<_>>()
    );
    let mut cells = 0;
    for line in lines {
        let words: Vec<_> = line.split_whitespace().collect();
        let resource = Resource::ALL
            .iter()
            .find(|resource| resource.as_str() == words[0])
            .unwrap();
        let action = Action::ALL.iter().find(|action| action.as_str() == words[1]).unwrap();
        for (role, word) in Role::ALL.iter().zip(&words[2..]) {
            let extent = match *word {
                "-" => Extent::None,
                "own" => Extent::Own,
                "all" => Extent::All,
                other => panic!("`{other}` is no extent"),
            };
            assert_eq!(permitted(*role, *action, *resource), extent, "{line}");
            cells += 1;
        }
    }
    assert_eq!(cells, Role::ALL.len() * Action::ALL.len() * Resource::ALL.len());
}

fn all() -> impl Iterator<Item = (Action, Resource)> {
    Action::ALL
        .iter()
        .flat_map(|action| Resource::ALL.iter().map(|resource| (*action, *resource)))
}

#[test]
fn a_stronger_role_may_no_less() {
    assert!(Role::ALL.is_sorted(), "from weakest to strongest");
    for (action, resource) in all() {
        let extents: Vec<_> = Role::ALL
            .iter()
            .map(|role| permitted(*role, action, resource))
            .collect();
        assert!(
            extents.is_sorted(),
            "{} {}: {extents:?}",
            resource.as_str(),
            action.as_str()
        );
    }
}

#[test]
fn the_platform_is_for_administrators_only() {
    for action in Action::ALL {
        for role in Role::ALL {
            let extent = permitted(*role, *action, Resource::Platform);
            let expected = if *role == Role::Administrator {
                Extent::All
            } else {
                Extent::None
            };
            assert_eq!(extent, expected, "{} {}", role.as_str(), action.as_str());
        }
    }
    for action in [Action::Create, Action::Delete] {
        for role in [Role::Viewer, Role::User, Role::Manager, Role::OrgAdmin] {
            assert_eq!(
                permitted(role, action, Resource::Organization),
                Extent::None,
                "{role:?} {action:?}"
            );
        }
    }
}

#[test]
fn only_who_administers_an_organization_changes_its_rules() {
    for (action, resource) in all() {
        let rules = matches!(
            resource,
            Resource::Member
                | Resource::Key
                | Resource::Config
                | Resource::Policy
                | Resource::Audit
                | Resource::Organization
        );
        let changes = !matches!(action, Action::Read | Action::List);
        for role in [Role::Viewer, Role::User, Role::Manager] {
            if rules && changes {
                assert_eq!(
                    permitted(role, action, resource),
                    Extent::None,
                    "{role:?} {action:?} {resource:?}"
                );
            }
        }
    }
    // Audit records name people, keys give rights: neither is for everybody to read.
    for role in [Role::Viewer, Role::User, Role::Manager] {
        for action in [Action::Read, Action::List] {
            assert_eq!(permitted(role, action, Resource::Audit), Extent::None);
            assert_eq!(permitted(role, action, Resource::Key), Extent::None);
        }
    }
}

#[test]
fn a_viewer_changes_nothing_and_sees_own_results_only() {
    for (action, resource) in all() {
        let extent = permitted(Role::Viewer, action, resource);
        if !matches!(action, Action::Read | Action::List) {
            assert_eq!(extent, Extent::None, "{action:?} {resource:?}");
        }
    }
    for role in [Role::Viewer, Role::User] {
        for action in [Action::Read, Action::List] {
            assert_eq!(permitted(role, action, Resource::Run), Extent::Own);
        }
    }
}

#[test]
fn to_list_is_to_read_and_to_change_is_to_read() {
    for resource in Resource::ALL {
        for role in Role::ALL {
            let may = |action| permitted(*role, action, *resource);
            assert!(may(Action::Modify) <= may(Action::Read), "{role:?} {resource:?}");
            assert!(may(Action::Delete) <= may(Action::Read), "{role:?} {resource:?}");
            assert!(may(Action::List) <= may(Action::Read), "{role:?} {resource:?}");
        }
    }
}

#[test]
fn a_key_may_what_its_scopes_say_and_nothing_else() {
    for (action, resource) in all() {
        assert_eq!(permitted_to_key(&[], action, resource), Extent::None);
        assert_eq!(permitted_to_key(&[KeyScope::All], action, resource), Extent::All);
        for (other_action, other_resource) in all() {
            let one = permitted_to_key(&[KeyScope::One(other_resource, other_action)], action, resource);
            assert_eq!(one == Extent::All, (other_action, other_resource) == (action, resource));
            let every = permitted_to_key(&[KeyScope::Every(other_resource)], action, resource);
            assert_eq!(every == Extent::All, other_resource == resource);
        }
        let scope = KeyScope::One(resource, action);
        assert_eq!(scope.to_string().parse(), Ok(scope));
    }
    for text in [
        "",
        "*:*",
        "*:run",
        "run",
        "run:",
        ":run",
        "Run:read",
        "run:read:all",
        "run:fly",
        " *",
    ] {
        assert!(text.parse::<KeyScope>().is_err(), "`{text}`");
    }
}
