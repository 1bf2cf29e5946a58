//! `recsys-ingest doctor`: what is wrong with the database and the spool, what it costs, and what
//! mends it.
//!
//! Exit code 0: nothing was found; 1: something was; 2: it could not look.

mod spool;

use anyhow::Result;
use serde_json::json;

use crate::accounts::doctor::diagnosis::{Diagnosis, Examination};
use crate::accounts::doctor::{examine, mend};
use crate::clock;
use crate::config::doctor::{Doctor, Least};
use crate::finding::{Finding, Severity};
use crate::logging;
use crate::postgres::checks::server::{self, first_contact};
use crate::postgres::error::{Error, ErrorChain};
use crate::postgres::session::Session;
use crate::service::build::connections_to_postgres;

use super::advice::with_advice;
use super::terminal::print;

/// The exit code where nothing could be looked at.
const COULD_NOT_LOOK: u8 = 2;

/// The longest that one question, or one `VACUUM` of `--fix`, may take.
const STATEMENT_MAX: std::time::Duration = std::time::Duration::from_secs(600);

/// A finding, and what `--fix` did about it.
type Told = (Diagnosis, Option<Result<String, String>>);

pub(crate) async fn run(doctor: Doctor) -> Result<u8> {
    match look(&doctor).await {
        Ok(code) => Ok(code),
        Err(error) => {
            logging::say(&format!("recsys-ingest: cannot look: {error:#}"));
            Ok(COULD_NOT_LOOK)
        }
    }
}

async fn look(doctor: &Doctor) -> Result<u8> {
    let target = doctor.database.target()?;
    let needed = connections_to_postgres(doctor.writers, true, true);
    // As a start of the service does: a pooler is seen from the second session on.
    let opened = match first_contact(&target, needed).await.refusal {
        Some(refusal) => Err(Error::Unfit(refusal)),
        None => Session::open(&target, Some(STATEMENT_MAX)).await,
    };
    let (mut session, mut found, is_away) = match opened {
        Ok(mut session) => {
            let mut found = examine(&mut session.client, needed, clock::now).await?;
            let clear_text = session.clear_text.as_deref().map(server::clear_text);
            found.diagnoses.extend(clear_text.map(Diagnosis::from));
            (Some(session), found, false)
        }
        // The database answers, and no service can use it.
        Err(Error::Unfit(finding)) => {
            let diagnoses = vec![Diagnosis::from(finding)];
            (
                None,
                Examination {
                    diagnoses,
                    ..Examination::default()
                },
                false,
            )
        }
        Err(error) => {
            let not_looked_at = vec![format!("the database: {}", ErrorChain(&error))];
            (
                None,
                Examination {
                    not_looked_at,
                    ..Examination::default()
                },
                true,
            )
        }
    };
    match &doctor.spool_dir {
        Some(dir) => {
            let client = session.as_mut().map(|session| &mut session.client);
            let of_spool = spool::look(doctor, dir, client).await;
            found.add("the spool", of_spool.map_err(with_advice));
        }
        None => logging::say(
            "the spool is not looked at: --spool-dir or INGEST_SPOOL_DIR names its directory",
        ),
    }
    found.sort();
    let Examination {
        diagnoses,
        not_looked_at,
    } = found;
    let mut told: Vec<Told> = Vec::new();
    for diagnosis in diagnoses {
        let done = match &mut session {
            Some(session) if doctor.fix => mend(&mut session.client, &diagnosis).await,
            _ => None,
        };
        told.push((diagnosis, done));
    }
    match doctor.json {
        true => print(&document(&told, &not_looked_at))?,
        false => print(&in_words(&told, &not_looked_at, doctor.fix))?,
    }
    let least = match doctor.least {
        Least::Note => Severity::Note,
        Least::Degraded => Severity::Degraded,
        Least::Fault => Severity::Fault,
    };
    let is_open = |(diagnosis, done): &Told| {
        diagnosis.finding.severity >= least && !matches!(done, Some(Ok(_)))
    };
    Ok(match (told.iter().any(is_open), not_looked_at.is_empty()) {
        _ if is_away => COULD_NOT_LOOK,
        (true, _) => 1,
        (false, true) => 0,
        (false, false) => COULD_NOT_LOOK,
    })
}

fn document(told: &[Told], not_looked_at: &[String]) -> String {
    let findings = told
        .iter()
        .map(|(diagnosis, done)| diagnosis.json(done.as_ref()));
    json!({
        "findings": findings.collect::<Vec<_>>(),
        "not_looked_at": not_looked_at,
    })
    .to_string()
}

fn in_words(told: &[Told], not_looked_at: &[String], is_fixing: bool) -> String {
    let mut lines = Vec::new();
    for (diagnosis, done) in told {
        let Finding {
            code,
            severity,
            seen,
            meaning,
            remedy,
            ..
        } = &diagnosis.finding;
        lines.push(format!("{} {code}: {seen}", severity.as_str()));
        lines.push(format!("  cost: {meaning}"));
        lines.push(format!("  mend: {remedy}"));
        let sql = diagnosis.mend.sql();
        lines.extend(sql.iter().map(|statement| format!("        {statement}")));
        if let Some(command) = diagnosis.mend.command() {
            lines.push(format!("        {command}"));
        }
        match done {
            Some(Ok(what)) => lines.push(format!("  done: {what}")),
            Some(Err(why)) => lines.push(format!("  NOT DONE: {why}")),
            None => {}
        }
        lines.push(String::new());
    }
    for why in not_looked_at {
        lines.push(format!("not looked at: {why}"));
    }
    lines.push(summary(told, not_looked_at.is_empty(), is_fixing));
    lines.join("\n")
}

fn summary(told: &[Told], is_complete: bool, is_fixing: bool) -> String {
    let of = |severity: Severity| {
        let alike = told
            .iter()
            .filter(|(diagnosis, _)| diagnosis.finding.severity == severity);
        alike.count()
    };
    if told.is_empty() {
        return match is_complete {
            true => "nothing found".to_owned(),
            false => "nothing found in what could be looked at".to_owned(),
        };
    }
    let [faults, degraded, notes] = [Severity::Fault, Severity::Degraded, Severity::Note].map(of);
    let counts = format!(
        "{} found: {faults} fault, {degraded} degraded, {notes} note",
        told.len()
    );
    let is_safe = |(diagnosis, _): &&Told| diagnosis.mend.is_safe();
    let done = told.iter().filter(|(_, done)| matches!(done, Some(Ok(_))));
    match (is_fixing, told.iter().filter(is_safe).count()) {
        (true, _) => format!(
            "{counts}; {} mended, the rest is for you to decide",
            done.count()
        ),
        (false, 0) => counts,
        (false, safe) => format!("{counts}; `recsys-ingest doctor --fix` mends {safe} of them"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::doctor::diagnosis::Mend;

    #[test]
    fn a_finding_is_told_with_its_cost_its_sql_and_what_was_done() {
        let finding = Finding::new(Severity::Note, "dead_rows", "seen", "costs", "vacuum it");
        let diagnosis = Diagnosis {
            finding,
            mend: Mend::SafeSql("VACUUM t;".to_owned()),
        };
        let open = [(diagnosis.clone(), None)];
        assert_eq!(
            in_words(&open, &[], false),
            "note dead_rows: seen\n  cost: costs\n  mend: vacuum it\n        VACUUM t;\n\n\
             1 found: 0 fault, 0 degraded, 1 note; `recsys-ingest doctor --fix` mends 1 of them"
        );
        let done = [(diagnosis, Some(Ok("ran VACUUM t;".to_owned())))];
        let told = in_words(&done, &["the WAL: denied".to_owned()], true);
        assert!(told.contains("\n  done: ran VACUUM t;\n"), "{told}");
        assert!(
            told.contains("\nnot looked at: the WAL: denied\n"),
            "{told}"
        );
        assert!(
            told.ends_with("1 mended, the rest is for you to decide"),
            "{told}"
        );
        assert_eq!(in_words(&[], &[], false), "nothing found");
    }
}
