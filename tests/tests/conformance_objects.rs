//! Every adapter of objects and of rows does what its port promises.

use tasuki::folder::FolderObjects;
use tasuki_relay::clock::Clock;
use tasuki_tests::memory::MemoryObjects;
use tasuki_tests::suites::objects_suite;

#[tokio::test]
async fn objects_in_memory_conform() {
    objects_suite(&MemoryObjects::new(Clock::system())).await.unwrap();
}

#[tokio::test]
async fn objects_in_a_folder_conform() {
    let dir = tempfile::tempdir().unwrap();
    objects_suite(&FolderObjects::open(dir.path(), Clock::system()).unwrap()).await.unwrap();
}
