//! Every adapter of objects and of rows does what its port promises.

use tasuki_relay::clock::Clock;
use tasuki_tests::memory::MemoryObjects;
use tasuki_tests::suites::objects_suite;

#[tokio::test]
async fn objects_in_memory_conform() {
    objects_suite(&MemoryObjects::new(Clock::system())).await.unwrap();
}
