//! Which migrations a store still needs. They are compiled in, run forward only, and never change once
//! released: the table `schema_migrations` keeps a checksum of each, and a difference is an error.
//!
//! Out of scope: running them (`postgres.rs`, `sqlite.rs`).

use super::StoreError;

/// One file of `migrations/`.
#[derive(Debug)]
pub(super) struct Migration {
    pub(super) version: u32,
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
}

/// A row of `schema_migrations`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) version: u32,
    pub(super) checksum: String,
}

/// Those of PostgreSQL, in order.
pub(super) const POSTGRES: &[Migration] = &[
    Migration { version: 1, name: "init", sql: include_str!("../../migrations/postgres/0001_init.sql") },
    Migration { version: 2, name: "twin", sql: include_str!("../../migrations/postgres/0002_twin.sql") },
    Migration {
        version: 3,
        name: "verdicts",
        sql: include_str!("../../migrations/postgres/0003_verdicts.sql"),
    },
    Migration { version: 4, name: "write", sql: include_str!("../../migrations/postgres/0004_write.sql") },
];

/// Those of SQLite, in order.
pub(super) const SQLITE: &[Migration] = &[
    Migration { version: 1, name: "init", sql: include_str!("../../migrations/sqlite/0001_init.sql") },
    Migration { version: 2, name: "twin", sql: include_str!("../../migrations/sqlite/0002_twin.sql") },
    Migration {
        version: 3,
        name: "verdicts",
        sql: include_str!("../../migrations/sqlite/0003_verdicts.sql"),
    },
    Migration { version: 4, name: "write", sql: include_str!("../../migrations/sqlite/0004_write.sql") },
];

/// The version that this program needs, of both stores.
pub(super) const VERSION: u32 = POSTGRES[POSTGRES.len() - 1].version;

const _: () = assert!(SQLITE[SQLITE.len() - 1].version == VERSION);

impl Migration {
    /// FNV-1a: it tells an edited file from the original, which is all it is for.
    pub(super) fn checksum(&self) -> String {
        let hash = self.sql.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{hash:016x}")
    }
}

/// The migrations that are yet to be applied to a store that has `applied`.
pub(super) fn pending<'a>(
    all: &'a [Migration],
    applied: &[Applied],
) -> Result<Vec<&'a Migration>, StoreError> {
    for row in applied {
        match all.iter().find(|migration| migration.version == row.version) {
            None => return Err(StoreError::SchemaNewer { found: row.version, known: VERSION }),
            Some(migration) if migration.checksum() != row.checksum => {
                return Err(StoreError::SchemaChanged { version: row.version });
            }
            Some(_) => {}
        }
    }
    let is_applied = |migration: &&Migration| applied.iter().any(|row| row.version == migration.version);
    Ok(all.iter().filter(|migration| !is_applied(migration)).collect())
}

/// Whether a store that has `applied` can be worked with.
pub(super) fn check(all: &[Migration], applied: &[Applied]) -> Result<(), StoreError> {
    match pending(all, applied)?.is_empty() {
        true => Ok(()),
        false => {
            let found = applied.iter().map(|row| row.version).max().unwrap_or(0);
            Err(StoreError::SchemaOlder { found, needed: VERSION })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{BodyMatch, Failure, MissReason, Outcome};

    fn applied(migrations: &[Migration]) -> Vec<Applied> {
        migrations.iter().map(|m| Applied { version: m.version, checksum: m.checksum() }).collect()
    }

    #[test]
    fn versions_count_up_from_one_in_both_stores() {
        for all in [POSTGRES, SQLITE] {
            for (migration, version) in all.iter().zip(1..) {
                assert_eq!(migration.version, version);
            }
        }
        let names = |all: &'static [Migration]| all.iter().map(|m| m.name).collect::<Vec<_>>();
        assert_eq!(names(POSTGRES), names(SQLITE));
    }

    #[test]
    fn what_is_pending_is_what_was_not_applied() {
        let versions = |found: &[Applied]| {
            pending(POSTGRES, found).unwrap().iter().map(|migration| migration.version).collect::<Vec<_>>()
        };
        assert_eq!(versions(&[]), (1..=VERSION).collect::<Vec<_>>());
        assert!(versions(&applied(POSTGRES)).is_empty());
        assert!(check(POSTGRES, &applied(POSTGRES)).is_ok());
    }

    /// A store of the first version, with a row in each table, brought up to date.
    #[test]
    fn rows_of_the_first_version_are_kept() {
        let store = rusqlite::Connection::open_in_memory().unwrap();
        store.execute_batch(SQLITE[0].sql).unwrap();
        let row = "1, 0, 0, 7, 0, -1, 1, -1, 2, 3, 6, 0, 0, 0, 0, 0, 200, 1, 0, 0, -1, 0, 0, 0";
        store.execute(&format!("INSERT INTO metrics VALUES ({row})"), []).unwrap();
        store.execute(&format!("INSERT INTO steps VALUES ({row}, 1)"), []).unwrap();
        for migration in &SQLITE[1..] {
            store.execute_batch(migration.sql).unwrap();
        }
        for view in ["samples", "sample_steps"] {
            let found = store.query_row(
                &format!("SELECT endpoint_id, total_ms, twin, write_ms FROM {view}"),
                [],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
            );
            let expected: (i64, f64, i64, Option<f64>) = (7, 0.006, 0, None);
            assert_eq!(found, Ok(expected), "{view}");
        }
        assert_eq!(store.query_row("SELECT count(*) FROM failures", [], |row| row.get::<_, i64>(0)), Ok(0));
    }

    #[test]
    fn each_mismatch_names_its_remedy() {
        let message = |found: &[Applied]| check(POSTGRES, found).unwrap_err().to_string();
        assert!(message(&[]).contains("run `ringprobe migrate`"), "{}", message(&[]));
        let mut newer = applied(POSTGRES);
        newer.push(Applied { version: VERSION + 1, checksum: String::new() });
        assert!(message(&newer).contains("newer"), "{}", message(&newer));
        let edited = [Applied { version: 1, checksum: "0".repeat(16) }];
        assert!(message(&edited).contains("migration 1"), "{}", message(&edited));
    }

    #[test]
    fn lookup_tables_agree_with_the_codes() {
        let wanted = |rows: Vec<(i16, &str)>| -> Vec<String> {
            rows.iter().map(|(code, name)| format!("({code}, '{name}')")).collect()
        };
        let rows = |migrations: &[Migration], table: &str| -> Vec<String> {
            let insert = format!("INSERT INTO {table} (code, name) VALUES");
            let inserts = migrations.iter().flat_map(|migration| migration.sql.split(&insert).skip(1));
            let values = inserts.filter_map(|text| text.split(';').next());
            values.flat_map(|values| values.split(",\n")).map(|row| row.trim().to_owned()).collect()
        };
        let outcomes = wanted(Outcome::ALL.iter().map(|it| (*it as i16, it.name())).collect());
        let failures = Failure::ALL.iter().map(|it| (it.code(), it.name()));
        let classes =
            wanted(failures.chain(MissReason::ALL.iter().map(|it| (it.code(), it.name()))).collect());
        let bodies = wanted(BodyMatch::ALL.iter().map(|it| (*it as i16, it.name())).collect());
        for migrations in [POSTGRES, SQLITE] {
            assert_eq!(rows(migrations, "body_matches"), bodies);
            assert_eq!(rows(migrations, "outcomes"), outcomes);
            assert_eq!(rows(migrations, "failure_classes"), classes);
        }
    }
}
