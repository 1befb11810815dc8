//! The two tasks that use the store on the office's behalf: one writes batches, one looks things up beside it.
//!
//! They decide nothing; each question comes back with its answer.

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use wire::frame::PutId;

use crate::office::PutOrder;
use crate::store::{Batch, BatchError, KnownPut, Reader, Store, StoreError, Writer};

/// What the office wants to know.
pub(crate) enum Question {
    /// The bytes of these envelopes, for this reader of this mailbox.
    Bodies {
        mailbox: [u8; 32],
        connection: u64,
        numbers: Vec<i64>,
    },
    /// Whether this put is known to mailbox `number`.
    Put { number: i64, order: Box<PutOrder> },
    /// Which puts have expired at this time; and fold the log into the file while at it.
    Expired { now: u64 },
}

/// What the clerks report.
pub(crate) enum Report {
    /// A batch was written, or not.
    Written(Box<Batch>, Result<(), BatchError>),
    /// The answer to [`Question::Bodies`].
    Bodies {
        mailbox: [u8; 32],
        connection: u64,
        asked: Vec<i64>,
        found: Vec<(i64, Bytes)>,
    },
    /// The answer to [`Question::Put`].
    Put {
        order: Box<PutOrder>,
        known: Option<KnownPut>,
    },
    /// The answer to [`Question::Expired`].
    Expired { now: u64, puts: Vec<(i64, PutId, u64)> },
    /// A question can't be answered: the store can't be read.
    Unreadable(sqlx::Error),
}

/// The office's end of both.
pub(crate) struct Clerks {
    /// One batch at a time.
    pub(crate) batches: mpsc::Sender<Box<Batch>>,
    /// Not bounded here: each connection has few questions open, and the sweeper one.
    pub(crate) questions: mpsc::UnboundedSender<Question>,
    /// What comes back.
    pub(crate) reports: mpsc::UnboundedReceiver<Report>,
    tasks: JoinSet<Result<(), sqlx::Error>>,
}

impl Clerks {
    /// Puts the clerks to work. They stop when this is dropped.
    pub(crate) fn hire(store: Store) -> Self {
        let (batches, batches_end) = mpsc::channel(1);
        let (questions, questions_end) = mpsc::unbounded_channel();
        let (reports_start, reports) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(write(store.writer, batches_end, reports_start.clone()));
        tasks.spawn(look_up(store.reader, questions_end, reports_start));
        Self {
            batches,
            questions,
            reports,
            tasks,
        }
    }

    /// Lets both finish and closes the store.
    pub(crate) async fn dismiss(self) -> Result<(), StoreError> {
        let Self {
            batches,
            questions,
            mut tasks,
            ..
        } = self;
        // One after the other: the last to close folds the log into the file, and two at once would each leave it to the
        // other.
        drop(questions);
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
        let report = answer(&mut reader, question).await.unwrap_or_else(Report::Unreadable);
        reports.send(report).ok();
    }
    reader.close().await
}

async fn answer(reader: &mut Reader, question: Question) -> Result<Report, sqlx::Error> {
    Ok(match question {
        Question::Bodies {
            mailbox,
            connection,
            numbers,
        } => Report::Bodies {
            found: reader.bodies(&numbers).await?,
            mailbox,
            connection,
            asked: numbers,
        },
        Question::Put { number, order } => Report::Put {
            known: reader.put(number, &order.id).await?,
            order,
        },
        Question::Expired { now } => {
            reader.checkpoint().await?;
            Report::Expired {
                now,
                puts: reader.expired_puts(now).await?,
            }
        }
    })
}
