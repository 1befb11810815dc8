//! What becomes of a group and of a look: answers, deliveries and hints when it is committed, refusals when it isn't.

use std::collections::BTreeSet;

use wire::frame::{Close, Done, Reason, RelayFrame, Stored};

use super::{BACK_MS, Office, refuse};
use crate::outbox::Outbox;
use crate::shared::database::Failure;
use crate::shared::fetch::Fetched;
use crate::shared::job::{Job, Key, Outcome, PutJob, Verdict};
use crate::shared::seats::Looked;
use crate::shared::writer::Written;

impl Office {
    pub(super) fn hear(&mut self, written: Written) {
        let puts = written.jobs.iter().filter(|job| matches!(job, Job::Put(_))).count();
        if let Some(since) = self.writing.take() {
            self.health.metrics.flush_seconds.observe(since.elapsed().as_secs_f64());
            self.health.metrics.group_puts.observe(puts as f64);
        }
        let bytes = written.jobs.iter().filter_map(|job| match job {
            Job::Put(put) => Some(put.body.len()),
            _ => None,
        });
        self.health.memory.give(bytes.sum());
        match written.outcome {
            Ok(outcome) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the database takes envelopes again");
                }
                self.health.set(true);
                self.answer(written.jobs, outcome);
            }
            Err(failure) => self.fail(written.jobs, &failure),
        }
    }

    fn answer(&mut self, jobs: Vec<Job>, outcome: Outcome) {
        self.health.metrics.acknowledged.inc_by(outcome.acknowledged);
        let mut hints: BTreeSet<(i64, Key)> = outcome.displaced.into_iter().collect();
        for (job, verdict) in jobs.into_iter().zip(outcome.verdicts) {
            match job {
                Job::Put(put) => hints.extend(self.answer_put(&put, verdict)),
                Job::Allow { hash, outbox, .. } => done(&outbox, verdict, Done::Allow(hash)),
                Job::Revoke { hash, outbox, .. } => done(&outbox, verdict, Done::Revoke(hash)),
                Job::Close { outbox, .. } => done(&outbox, verdict, Done::CloseMailbox),
                Job::Ack { key, sequence } => {
                    if verdict == Verdict::Partly {
                        self.gathering.acknowledge(key, sequence);
                    }
                }
                Job::Claim { key, connection } => {
                    if let Verdict::Claimed { generation, status } = verdict {
                        match self.seats.connection(&key) {
                            Some(reader) if reader == connection => {
                                self.seats.claimed(&key, connection, generation, status);
                            }
                            // Its own claim follows, or was the same.
                            Some(_) => {}
                            None => self.gathering.jobs.push(Job::Release { key, generation }),
                        }
                    }
                }
                Job::Look { outbox, .. } => {
                    if let Verdict::Seen(status) = verdict {
                        outbox.answer(RelayFrame::Reading {
                            next_sequence: status.next_sequence,
                            waiting: status.waiting,
                        });
                    }
                }
                Job::Seen { .. } | Job::Release { .. } => {}
            }
        }
        for (node, key) in hints {
            self.bus.hint(node, &key);
        }
    }

    /// Says which node has the reader, if it is another one.
    fn answer_put(&mut self, put: &PutJob, verdict: Verdict) -> Option<(i64, Key)> {
        let mut hint = None;
        let how = match verdict {
            Verdict::Accepted(accepted) => {
                self.health.metrics.accepted.inc();
                let elsewhere = accepted.reader.filter(|reader| reader.node != self.node);
                hint = elsewhere.map(|reader| (reader.node, put.key));
                self.seats.committed(&put.key, accepted, &put.body);
                Stored::Flushed
            }
            Verdict::Stored(how) => how,
            Verdict::Refused(reason, retry_after_ms) => {
                refuse(&put.outbox, put.id, reason, retry_after_ms);
                return None;
            }
            _ => return None,
        };
        match how {
            Stored::Flushed => self.health.metrics.stored_flushed.inc(),
            Stored::Acknowledged => self.health.metrics.stored_acknowledged.inc(),
        };
        put.outbox.answer(RelayFrame::Stored { id: put.id, how });
        hint
    }

    /// Whether anything of the group is committed isn't known: puts are refused, to be given again under the same ids, and
    /// the rest is tried again.
    fn fail(&mut self, jobs: Vec<Job>, failure: &Failure) {
        self.away(failure);
        let gathered = std::mem::take(&mut self.gathering.jobs);
        let hopeless = matches!(failure, Failure::Refused(_));
        for (job, tried) in jobs
            .into_iter()
            .map(|job| (job, true))
            .chain(gathered.into_iter().map(|job| (job, false)))
        {
            match job {
                Job::Put(put) => {
                    if !tried {
                        self.health.memory.give(put.body.len());
                    }
                    refuse(&put.outbox, put.id, Reason::NotStored, BACK_MS);
                }
                Job::Ack { key, sequence } if !hopeless => self.gathering.acknowledge(key, sequence),
                // It would be refused again, and everything gathered with it.
                Job::Allow { outbox, .. }
                | Job::Revoke { outbox, .. }
                | Job::Close { outbox, .. }
                | Job::Look { outbox, .. }
                    if hopeless && tried =>
                {
                    outbox.close(Close::ShuttingDown);
                }
                job if !(hopeless && tried) => self.gathering.jobs.push(job),
                _ => {}
            }
        }
        self.gathering.puts = 0;
        self.gathering.bytes = 0;
    }

    fn away(&mut self, failure: &Failure) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(%failure, "envelopes are refused until the database takes them");
        }
        self.health.set(false);
    }

    pub(super) fn give(&mut self, fetched: Fetched) {
        match fetched {
            Fetched::Found(found) => {
                for found in found {
                    let key = found.want.key;
                    if let Looked::Forgotten { connection } = self.seats.found(found) {
                        self.gathering.jobs.push(Job::Claim { key, connection });
                    }
                }
            }
            Fetched::Failed(wants, failure) => {
                self.away(&failure);
                self.seats.unanswered(&wants);
            }
        }
    }
}

fn done(outbox: &Outbox, verdict: Verdict, done: Done) {
    match verdict {
        Verdict::TooMany => outbox.close(Close::TooMany),
        _ => outbox.answer(RelayFrame::Done(done)),
    }
}
