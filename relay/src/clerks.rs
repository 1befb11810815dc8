//! The two tasks that use the store on the office's behalf: one writes batches, one looks things up beside it.
//!
//! They decide nothing; each question comes back with its answer.

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::store::{Batch, BatchError, Found, Reader, Store, StoreError, Writer};

/// What the desk wants to know.
#[derive(Debug)]
pub(crate) enum Question {
    /// These bundles, for this reader of this mailbox.
    Bundles {
        mailbox: [u8; 32],
        connection: u64,
        numbers: Vec<i64>,
    },
    /// Which rows of puts have expired at this time; and fold the log into the file while at it.
    Expired { now: u64 },
}

/// What the clerks report.
pub(crate) enum Report {
    /// A batch was written, or not.
    Written(Box<Batch>, Result<(), BatchError>),
    /// The answer to [`Question::Bundles`].
    Bundles {
        mailbox: [u8; 32],
        connection: u64,
        asked: Vec<i64>,
        found: Vec<Found>,
    },
    /// The answer to [`Question::Expired`], and whether there may be more.
    Expired { rows: Vec<i64>, more: bool },
    /// A question can't be answered: the store can't be read.
    Unreadable(StoreError),
}

/// The office's end of both.
pub(crate) struct Clerks {
    /// One batch at a time.
    pub(crate) batches: mpsc::Sender<Box<Batch>>,
    /// What comes back.
    pub(crate) reports: mpsc::UnboundedReceiver<Report>,
    tasks: JoinSet<Result<(), sqlx::Error>>,
}

/// Where questions go. Not bounded here: each reader has one open, and the sweeper one.
pub(crate) type Questions = mpsc::UnboundedSender<Question>;

impl Clerks {
    /// Puts the clerks to work on the store, and on the questions that come. They stop when this is dropped.
    pub(crate) fn hire(store: Store, questions: mpsc::UnboundedReceiver<Question>) -> Self {
        let (batches, batches_end) = mpsc::channel(1);
        let (reports_start, reports) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(write(store.writer, batches_end, reports_start.clone()));
        tasks.spawn(look_up(store.reader, questions, reports_start));
        Self {
            batches,
            reports,
            tasks,
        }
    }

    /// Lets both finish and closes the store. The one end of the questions has to be gone.
    pub(crate) async fn dismiss(self) -> Result<(), StoreError> {
        let Self { batches, mut tasks, .. } = self;
        // One after the other: the last to close folds the log into the file, and two at once would each leave it to the
        // other.
        closed(tasks.join_next().await)?;
        drop(batches);
        closed(tasks.join_next().await)
    }
}

fn closed(done: Option<Result<Result<(), sqlx::Error>, tokio::task::JoinError>>) -> Result<(), StoreError> {
    match done {
        Some(Ok(closed)) => closed.map_err(|source| StoreError::Unknown { source }),
        Some(Err(_)) | None => Err(StoreError::Stopped),
    }
}

async fn write(
    mut writer: Writer,
    mut batches: mpsc::Receiver<Box<Batch>>,
    reports: mpsc::UnboundedSender<Report>,
) -> Result<(), sqlx::Error> {
    while let Some(batch) = batches.recv().await {
        let outcome = writer.write(&batch).await;
        reports.send(Report::Written(batch, outcome)).ok();
    }
    writer.close().await
}

async fn look_up(
    mut reader: Reader,
    mut questions: mpsc::UnboundedReceiver<Question>,
    reports: mpsc::UnboundedSender<Report>,
) -> Result<(), sqlx::Error> {
    while let Some(question) = questions.recv().await {
        let report = answer(&mut reader, question).await;
        let report = report.unwrap_or_else(|error| Report::Unreadable(reader.suspect(error)));
        reports.send(report).ok();
    }
    reader.close().await
}

async fn answer(reader: &mut Reader, question: Question) -> Result<Report, sqlx::Error> {
    Ok(match question {
        Question::Bundles {
            mailbox,
            connection,
            numbers,
        } => Report::Bundles {
            found: reader.bundles(&numbers).await?,
            mailbox,
            connection,
            asked: numbers,
        },
        Question::Expired { now } => {
            reader.checkpoint().await?;
            let (rows, more) = reader.expired_puts(now).await?;
            Report::Expired { rows, more }
        }
    })
}
