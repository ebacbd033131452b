//! `weft seed`: sample data for development.

use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use super::{Failure, Outcome, Places, block_on, output, prepare};
use crate::boot;
use crate::tenancy;
use crate::usecase::seed;

/// Flags of `weft seed`.
#[derive(Debug, Args)]
pub(super) struct Seed {
    #[command(flatten)]
    places: Places,
    /// Print what was written as JSON, identities of the sample people included
    #[arg(long)]
    json: bool,
}

impl Seed {
    pub(super) fn run(self) -> Outcome {
        let config = prepare(&self.places)?;
        if config.mode.on_azure {
            return Err(Failure::new("sample data is for development, and this is Azure")
                .hint("create organizations of your own"));
        }
        block_on(async move {
            let begun = Instant::now();
            let base = boot::base(config)?;
            let cx = boot::opened(&base).await?;
            let platform = tenancy::operator();
            let seeded = seed::seed(&cx, &platform, |step| output::progress(&format!("seeding {step}"))).await?;
            output::progress_done();
            if self.json {
                output::json(&seeded);
            } else {
                output::data(&format!(
                    "{} organizations, {} people, {} configuration entries: {} created, {} changed, {} as they were, in {:.1} s",
                    seeded.organizations.len(),
                    seeded.people.len(),
                    seeded.config_entries,
                    seeded.created,
                    seeded.changed,
                    seeded.unchanged,
                    begun.elapsed().as_secs_f64()
                ));
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}
