//! The EAL pins its thread; control threads are as free as that thread was before.

mod common;

use common::cpus_of;
use dpdk_rs::Eal;

#[test]
fn a_control_thread_may_use_the_cpus_of_before() {
    let before = common::cpus();
    let first = before.split([',', '-']).next().unwrap();
    let lcores = format!("0@{first},1@({before})");
    let mut args = common::arguments(&[]);
    *args.last_mut().unwrap() = lcores;
    args.push("--".to_owned());
    args.push("--config".to_owned());
    let (eal, rest) = Eal::init(args).unwrap();
    assert_eq!(rest, ["test", "--config"]);

    let here = || cpus_of("/proc/thread-self/status");
    assert_eq!(here(), first, "the main lcore is pinned");
    eal.scope(|scope| {
        assert_eq!(scope.control("free", here).unwrap().join().unwrap(), before);
        let worker = eal.lcores()[1];
        assert_eq!(scope.launch(worker, here).unwrap().join().unwrap(), before);
    });
}
