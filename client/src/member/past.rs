//! The last of its kind that people approved, to be compared with what is asked now. It is read from this party's own copy
//! of the transcript. Not here: what is different (`show::compare`).

use approval::Digest;
use approval::permit::Basis;
use approval::request::Request;
use approval::statement::{Statement, Verified};

use crate::party::{Party, PartyError};
use crate::show;
use crate::show::compare::{Past, alike};

/// How many of the latest permits are looked at: a look must not take longer than a person's.
const LATEST: u32 = 256;

/// The last one, if there is one among the latest permits.
pub async fn past(party: &Party, request: &Verified<Request>) -> Result<Option<Past>, PartyError> {
    let mut tx = party.store.begin().await?;
    let mut found = None;
    for permit in tx.newest("permit", LATEST).await? {
        let permit = permit.verify()?;
        let Statement::Permit(permit) = permit.get() else {
            continue;
        };
        // What a grant or a rule let through nobody has looked at.
        let Basis::Decisions(decisions) = &permit.basis else {
            continue;
        };
        if permit.request == request.digest() {
            continue;
        }
        let Some(before) = tx.statement(&permit.request).await? else {
            continue;
        };
        let before = before.verify()?;
        let Statement::Request(asked) = before.get() else {
            continue;
        };
        if !alike(&asked.action, &request.action) {
            continue;
        }
        let by = names(party, &mut tx, decisions).await?;
        found = Some(Past {
            request: asked.clone(),
            id: before.digest(),
            by,
            time: permit.time,
        });
        break;
    }
    tx.commit().await?;
    Ok(found)
}

/// Who stands behind these decisions, each once.
pub async fn names(party: &Party, tx: &mut crate::store::Tx, decisions: &[Digest]) -> Result<Vec<String>, PartyError> {
    let mut names = Vec::new();
    for decision in decisions {
        if let Some(signed) = tx.statement(decision).await? {
            let name = show::who(party.replay.roster(), &signed.verify()?.signer());
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Ok(names)
}
