use lifecycle::Health;
use settings::Value;
use tempfile::TempDir;

use super::simulation::SimulatedDisk;
use super::*;
use crate::config::SpoolDirectory;

/// In memory, where the system has a place for such: a busy disk can take longer than `TIMEOUT`.
fn folder() -> TempDir {
    TempDir::new_in("/dev/shm")
        .or_else(|_| TempDir::new())
        .unwrap()
}

fn start(directory: &TempDir, limit: &str, health: &Health) -> Spool {
    let directory = SpoolDirectory(directory.path().join("spool"));
    let limit = <ByteSize as Value>::parse(limit).unwrap();
    let shutdown = Shutdown::new(Duration::from_secs(1));
    Spool::start(&directory, limit, health.dependency("spool"), &shutdown).0
}

async fn append<D: Disk>(spool: &Spool<D>) -> Result<(), SpoolError> {
    spool.append(vec![ObjectId(1)], &TraceSet::default()).await
}

#[tokio::test]
async fn a_disk_that_works_again_is_noticed_without_a_callback() {
    let (directory, health) = (folder(), Health::default());
    let in_the_way = directory.path().join("spool");
    std::fs::write(&in_the_way, "").unwrap();
    let spool = start(&directory, "1MiB", &health);
    assert!(matches!(append(&spool).await, Err(SpoolError::Disk)));
    spool.check().await;
    assert!(!health.is_ready());
    assert!(
        health.lines().contains("SPOOL_DIRECTORY"),
        "{}",
        health.lines()
    );
    std::fs::remove_file(&in_the_way).unwrap();
    spool.check().await;
    assert!(health.is_ready());
    assert!(append(&spool).await.is_ok());
}

#[tokio::test]
async fn a_full_spool_is_well_again_when_a_segment_is_drained() {
    let (directory, health) = (folder(), Health::default());
    let spool = start(&directory, "60B", &health);
    assert!(append(&spool).await.is_ok());
    assert!(matches!(append(&spool).await, Err(SpoolError::Full)));
    spool.check().await;
    assert!(!health.is_ready());
    let segment = spool.seal_oldest().await.unwrap();
    spool.settle(segment, Removal::Delete).await;
    assert!(health.is_ready());
    assert_eq!(spool.depth().segments(), 0);
    assert!(append(&spool).await.is_ok());
}

#[tokio::test]
async fn what_was_adopted_takes_no_room() {
    let (directory, health) = (folder(), Health::default());
    let gone = start(&directory, "60B", &health);
    assert!(append(&gone).await.is_ok());
    let spool = start(&directory, "60B", &health);
    spool.check().await;
    drop(gone);
    // The other one ends by itself.
    while spool.depth().adopted.segments == 0 {
        spool.search().await.unwrap();
    }
    assert!(append(&spool).await.is_ok());
}

#[tokio::test]
async fn a_disk_that_hangs_is_named_and_does_not_hold_up_the_end() {
    let (disk, health) = (SimulatedDisk::new(0, 0.0, None), Health::default());
    let shutdown = Shutdown::new(Duration::from_millis(100));
    let (dependency, directory) = (health.dependency("spool"), Path::new("/spool"));
    let limit = <ByteSize as Value>::parse("1MiB").unwrap();
    let (spool, task) = Spool::start_on(disk.clone(), directory, limit, dependency, &shutdown);
    assert!(append(&spool).await.is_ok() && health.is_ready());
    let hang = disk.hang();
    assert!(matches!(append(&spool).await, Err(SpoolError::Timeout)));
    spool.check().await;
    assert!(
        health.lines().contains("takes too long"),
        "{}",
        health.lines()
    );
    shutdown.begin();
    task.finished().await;
    drop(hang);
}

#[tokio::test]
async fn a_disk_that_hung_is_well_again_when_it_answers() {
    let (disk, health) = (SimulatedDisk::new(0, 0.0, None), Health::default());
    let shutdown = Shutdown::new(Duration::from_millis(100));
    let (dependency, directory) = (health.dependency("spool"), Path::new("/spool"));
    let limit = <ByteSize as Value>::parse("1MiB").unwrap();
    let (spool, _) = Spool::start_on(disk.clone(), directory, limit, dependency, &shutdown);
    let hang = disk.hang();
    spool.check().await;
    assert!(!health.is_ready());
    drop(hang);
    spool.check().await;
    assert!(health.is_ready());
}
