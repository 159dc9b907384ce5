//! bench.rs: the workloads of perf/bench that tokio has too, measured the same way: one workload and
//! one run a process, a warm-up with a tenth of n, then the measured call; rows are the same lines of
//! JSON. perf/bench_rivals.py runs it beside ours.
//!
//! usage: bench WORKLOAD RUNTIME WORKERS N
//!   RUNTIME   multi: the multi-thread scheduler with WORKERS threads; current: one thread, no stealing
//!
//! Everything is measured from inside a task, as ours is from inside a process. Drivers for I/O and
//! time are on, as servers have them.

use std::future::Future;
use std::pin::Pin;
use std::process::exit;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{spawn, spawn_blocking, yield_now, JoinHandle};

const BATCH: u64 = 10_000;
const YIELDERS: u64 = 1000;

/// What a row says: its name and its figures, by the names of perf/bench.
struct Row {
    variant: &'static str,
    figures: Vec<(&'static str, f64)>,
}

/// Wall and processor time from here on.
struct Clock {
    start: Instant,
    cpu_ns: u64,
}

impl Clock {
    fn start() -> Clock {
        Clock { cpu_ns: cpu_ns(), start: Instant::now() }
    }

    /// A row of what each of `operations` took.
    fn row(&self, variant: &'static str, operations: u64) -> Row {
        let wall_ns = self.start.elapsed().as_nanos() as f64;
        let cpu_ns = (cpu_ns() - self.cpu_ns) as f64;
        let each = |total_ns: f64| total_ns / operations as f64;
        Row { variant, figures: vec![("ns_per_op", each(wall_ns)), ("cpu_ns", each(cpu_ns))] }
    }
}

/// Processor time of all threads of this process so far.
fn cpu_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes the timespec, and nothing else.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc/self/statm");
    let pages: f64 = statm.split(' ').nth(1).expect("resident").parse().expect("a number");
    // SAFETY: no memory is passed.
    pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as f64
}

// ---- The workloads ------------------------------------------------------------------------------

/// Batches of empty tasks: handles dropped, their runs counted; and handles kept and awaited.
async fn spawns(n: u64) -> Vec<Row> {
    let ran = Arc::new(AtomicU64::new(0));
    let clock = Clock::start();
    let mut done = 0;
    while done < n {
        let end = n.min(done + BATCH);
        while done < end {
            let ran = ran.clone();
            // Only ever one worker here: no read-modify-write is needed, as in ours.
            spawn(async move { ran.store(ran.load(Ordering::Relaxed) + 1, Ordering::Relaxed) });
            done += 1;
        }
        while ran.load(Ordering::Relaxed) < done {
            yield_now().await;
        }
    }
    let detached = clock.row("detached", n);
    let mut handles: Vec<JoinHandle<()>> = Vec::with_capacity(BATCH as usize);
    let clock = Clock::start();
    let mut done = 0;
    while done < n {
        let end = n.min(done + BATCH);
        handles.extend((done..end).map(|_| spawn(async {})));
        for handle in handles.drain(..) {
            handle.await.expect("a task has failed");
        }
        done = end;
    }
    vec![detached, clock.row("joined", n)]
}

/// 1000 tasks that yield n times each.
async fn yields(n: u64) -> Vec<Row> {
    let yielder = move || async move {
        for _ in 0..n {
            yield_now().await;
        }
    };
    let handles: Vec<_> = (0..YIELDERS).map(|_| spawn(yielder())).collect();
    let clock = Clock::start();
    for handle in handles {
        handle.await.expect("a task has failed");
    }
    vec![clock.row("yield", n * YIELDERS)]
}

/// Joins alone: of tasks that have ended; and, one at a time, of one that has just been spawned.
async fn joins(n: u64) -> Vec<Row> {
    let ended: Vec<_> = (0..n).map(|_| spawn(async {})).collect();
    while !ended.iter().all(JoinHandle::is_finished) {
        yield_now().await;
    }
    let clock = Clock::start();
    for handle in ended {
        handle.await.expect("a task has failed");
    }
    let ended = clock.row("ended", n);
    let clock = Clock::start();
    for _ in 0..n {
        spawn(async {}).await.expect("a task has failed");
    }
    vec![ended, clock.row("one by one", n)]
}

/// Fork and join: every task spawns two and awaits both.
fn tree(depth: u64) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        if depth == 0 {
            return;
        }
        let left = spawn(tree(depth - 1));
        let right = spawn(tree(depth - 1));
        left.await.expect("a task has failed");
        right.await.expect("a task has failed");
    })
}

async fn trees(depth: u64) -> Vec<Row> {
    let clock = Clock::start();
    tree(depth).await;
    vec![clock.row("join", (2 << depth) - 1)]
}

/// Round trips to the pool of blocking threads: by one caller, and by 64 at once.
async fn blockings(n: u64) -> Vec<Row> {
    const CALLERS: u64 = 64;
    let call = |calls: u64| async move {
        for _ in 0..calls {
            spawn_blocking(|| ()).await.expect("a call has failed");
        }
    };
    let clock = Clock::start();
    call(n).await;
    let one = clock.row("1 caller", n);
    let clock = Clock::start();
    let callers: Vec<_> = (0..CALLERS).map(|_| spawn(call(n.div_euclid(CALLERS).max(1)))).collect();
    for caller in callers {
        caller.await.expect("a task has failed");
    }
    vec![one, clock.row("64 callers", n.div_euclid(CALLERS).max(1) * CALLERS)]
}

/// Resident memory of a task that waits: for ever, and asleep for an hour.
async fn memories(n: u64) -> Vec<Row> {
    let grown = |before: f64| vec![("bytes_each", (resident_bytes() - before) / n as f64)];
    let before = resident_bytes();
    for _ in 0..n {
        spawn(std::future::pending::<()>());
    }
    settle().await;
    let parked = Row { variant: "parked", figures: grown(before) };
    let before = resident_bytes();
    for _ in 0..n {
        spawn(tokio::time::sleep(Duration::from_secs(3600)));
    }
    settle().await;
    vec![parked, Row { variant: "asleep", figures: grown(before) }]
}

/// Until all that was spawned has run, on whichever worker.
async fn settle() {
    for _ in 0..1000 {
        yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
}

// ---- Running them -------------------------------------------------------------------------------

const WORKLOADS: &str = "spawn yield join spawn_tree blocking memory";

async fn run(workload: String, n: u64) -> Vec<Row> {
    match workload.as_str() {
        "spawn" => spawns(n).await,
        "yield" => yields(n).await,
        "join" => joins(n).await,
        "spawn_tree" => trees(n).await,
        "blocking" => blockings(n).await,
        "memory" => memories(n).await,
        _ => fail(&format!("no workload \"{}\": one of {}", workload, WORKLOADS)),
    }
}

fn fail(text: &str) -> ! {
    eprintln!("rivals/tokio/bench: {}", text);
    exit(2)
}

fn runtime(kind: &str, workers: usize) -> Runtime {
    let mut builder = match kind {
        "multi" => Builder::new_multi_thread(),
        "current" => Builder::new_current_thread(),
        _ => fail(&format!("no runtime \"{}\": multi or current", kind)),
    };
    builder.worker_threads(workers).enable_all().build().expect("a runtime")
}

/// From inside a task; of the current-thread scheduler what block_on() is given is one.
fn measure(workload: &str, kind: &str, workers: usize, n: u64) -> Vec<Row> {
    let runtime = runtime(kind, workers);
    let work = run(workload.to_string(), n);
    runtime.block_on(async { spawn(work).await.expect("the workload has failed") })
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [workload, kind, workers, n] = match <[String; 4]>::try_from(words) {
        Ok(words) => words,
        Err(_) => fail("usage: bench WORKLOAD multi|current WORKERS N"),
    };
    let number = |text: &str| match text.parse::<u64>() {
        Ok(number) if number > 0 => number,
        _ => fail(&format!("\"{}\" is not a number from 1", text)),
    };
    let (workers, n) = (number(&workers), number(&n));
    if workload == "spawn" && workers > 1 {
        fail("spawn counts on one worker");
    }
    match workload.as_str() {
        "memory" => {} // as ours: a warm-up would leave its heap behind
        "spawn_tree" => drop(measure(&workload, &kind, workers as usize, n.min(10))),
        _ => drop(measure(&workload, &kind, workers as usize, (n / 10).max(1))),
    }
    for row in measure(&workload, &kind, workers as usize, n) {
        let figures: Vec<_> =
            row.figures.iter().map(|(name, value)| format!("\"{}\":{}", name, value)).collect();
        println!(
            "{{\"workload\":\"{}\",\"variant\":\"{}\",\"process\":\"task\",\"idle\":\"park\",\
             \"driver\":\"epoll\",\"workers\":{},\"n\":{},\"runs\":1,{}}}",
            workload, row.variant, workers, n, figures.join(",")
        );
    }
}
