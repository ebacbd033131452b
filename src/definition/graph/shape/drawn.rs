//! What is there to look at only: labels, places on the canvas, and notes.

use serde_json::Value;

use super::is_id;
use super::members::{Object, Reader};
use crate::definition::graph::shown;
use crate::domain::{FARTHEST, MAX_LABEL, MAX_NOTES, Note, Position, Size};

impl Reader {
    pub(super) fn label(&mut self, object: &Object<'_>) -> Option<String> {
        let label = self.text(object, "label")?;
        if label.chars().count() > MAX_LABEL {
            let message = format!("`label` of {} has more than {MAX_LABEL} characters", object.what);
            let hint = "shorten it; `notes` of the graph take longer texts";
            self.add(object.pointer("label"), "out_of_range", message, hint);
        }
        Some(label)
    }

    /// Two numbers that are needed together.
    pub(super) fn two(&mut self, object: &Object<'_>, name: &str, names: [&str; 2], least: f64) -> Option<[f64; 2]> {
        let value = object.get(name)?;
        let Value::Object(members) = value else {
            self.wrong_type(
                object,
                name,
                &format!("an object with `{}` and `{}`", names[0], names[1]),
            );
            return None;
        };
        let inner = object.inner(name, members);
        self.known(&inner, &names);
        let mut numbers = [0.0; 2];
        for (number, name) in numbers.iter_mut().zip(names) {
            if inner.get(name).is_none() {
                self.missing(&inner, name, "a number");
            }
            *number = self.seconds(&inner, name, least, FARTHEST).unwrap_or_default();
        }
        Some(numbers)
    }

    pub(super) fn notes(&mut self, whole: &Object<'_>) -> Vec<Note> {
        let mut notes: Vec<Note> = Vec::new();
        for (index, value) in self.list(whole, "notes", MAX_NOTES, "notes").iter().enumerate() {
            let (at, what) = (format!("/notes/{index}"), format!("note {index}"));
            let hint = "write `{\"id\": \"why\", \"text\": \"…\"}`";
            let Some(note) = self.object(at, what, value, hint) else {
                continue;
            };
            self.known(&note, &["id", "text", "position", "size"]);
            let id = self.needed_text(&note, "id", "an id of its own");
            if !id.is_empty() && !is_id(&id) {
                let message = format!("`{}` can't be the id of a note", shown(&id));
                let hint = "write 1 to 63 lower-case letters, digits, `_` and `-`";
                self.add(note.pointer("id"), "bad_id", message, hint);
            } else if !id.is_empty() && notes.iter().any(|earlier| earlier.id == id) {
                let message = format!("there are two notes `{id}`");
                self.add(
                    note.pointer("id"),
                    "duplicate_id",
                    message,
                    "give each note an id of its own",
                );
            }
            if note.get("text").is_none() {
                self.missing(&note, "text", "what it says");
            }
            notes.push(Note {
                id,
                text: self.text(&note, "text").unwrap_or_default(),
                position: self
                    .two(&note, "position", ["x", "y"], -FARTHEST)
                    .map(|[x, y]| Position { x, y }),
                size: self
                    .two(&note, "size", ["width", "height"], 0.0)
                    .map(|[width, height]| Size { width, height }),
            });
        }
        notes
    }
}
