//! A party's copy of the transcript, read from its database and judged as an auditor would: from the exported bytes alone.

use std::io::Cursor;

use approval::checkpoint::Checkpoint;
use approval::export::{Expect, ExportWriter, Summary, verify};
use approval::outcome::Ended;
use approval::{Digest, Signed, Statement};
use countersign::store::Store;
use wire::identity::PartyId;

/// A copy of the transcript.
pub struct Copy {
    gate: PartyId,
    note: String,
    /// The signed statements, in order.
    pub entries: Vec<Signed>,
}

impl Copy {
    pub(super) async fn of(store: &Store, gate: PartyId) -> Self {
        let mut tx = store.begin().await.expect("the database");
        let note = tx.last_checkpoint().await.expect("a checkpoint").expect("a transcript");
        let size = Checkpoint::verify(&note, &gate).expect("the gate's checkpoint").size();
        let entries = tx.entries(0, size).await.expect("entries");
        tx.commit().await.expect("the end of reading");
        Self { gate, note, entries }
    }

    /// The export file.
    #[must_use]
    pub fn export(&self) -> Vec<u8> {
        let checkpoint = Checkpoint::verify(&self.note, &self.gate).expect("the gate's checkpoint");
        let mut writer = ExportWriter::new(Vec::new(), self.gate, checkpoint.size()).expect("a writer");
        for entry in &self.entries {
            writer.entry(entry).expect("an entry");
        }
        writer.finish(&checkpoint).expect("an export")
    }

    /// What an auditor makes of it.
    ///
    /// # Panics
    /// If there is a finding.
    #[must_use]
    pub fn verified(&self) -> Summary {
        verify(
            Cursor::new(self.export()),
            &Expect {
                gate: Some(self.gate),
                checkpoint: None,
            },
        )
        .expect("a transcript without findings")
    }

    /// Every statement in it.
    pub fn statements(&self) -> impl Iterator<Item = Statement> + '_ {
        self.entries
            .iter()
            .map(|entry| entry.verify().expect("a signed statement").get().clone())
    }

    /// How a request ended, if it did.
    #[must_use]
    pub fn outcome(&self, request: &Digest) -> Option<Ended> {
        self.statements().find_map(|statement| match statement {
            Statement::Outcome(outcome) if outcome.request == *request => Some(outcome.result),
            _ => None,
        })
    }

    /// How many permits a request got.
    #[must_use]
    pub fn permits(&self, request: &Digest) -> usize {
        self.statements()
            .filter(|statement| matches!(statement, Statement::Permit(permit) if permit.request == *request))
            .count()
    }

    /// How many decisions about a request were recorded.
    #[must_use]
    pub fn decisions(&self, request: &Digest) -> usize {
        self.statements()
            .filter(|statement| matches!(statement, Statement::Decision(decision) if decision.request == *request))
            .count()
    }
}
