use super::*;

const DEADLINES: Deadlines = Deadlines {
    head: Duration::from_secs(15),
    idle: Duration::from_secs(75),
    write: Duration::from_secs(30),
};

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[tokio::test(start_paused = true)]
async fn one_beyond_the_cap_makes_room_before_its_time_is_over() {
    let start = Instant::now();
    let activity = Arc::new(Activity::new(DEADLINES, start));
    activity.end_at(start + seconds(2), Overdue::Extra);
    assert_eq!(
        activity.deadline(),
        Some((start + seconds(2), Overdue::Extra))
    );
    activity.evict();
    assert_eq!(activity.deadline(), Some((start, Overdue::Evicted)));
    activity.is_closing(start, Overdue::Evicted);
    assert_eq!(
        activity.deadline(),
        Some((start + seconds(2), Overdue::Extra))
    );
}

#[tokio::test(start_paused = true)]
async fn a_head_has_its_deadline_from_the_connection_on_and_then_from_its_first_byte() {
    let start = Instant::now();
    let activity = Arc::new(Activity::new(DEADLINES, start));
    assert_eq!(
        activity.deadline(),
        Some((start + seconds(15), Overdue::Head))
    );
    assert_eq!(activity.read(start + seconds(3)), Some(0));
    // Further bytes do not extend it.
    assert_eq!(activity.read(start + seconds(4)), Some(0));
    assert_eq!(
        activity.deadline(),
        Some((start + seconds(18), Overdue::Head))
    );
    let request = activity.begin();
    assert_eq!(activity.deadline(), None);
    tokio::time::advance(seconds(100)).await;
    drop(request);
    assert_eq!(
        activity.deadline(),
        Some((start + seconds(175), Overdue::Idle))
    );
    assert_eq!(activity.read(start + seconds(110)), Some(1));
    assert_eq!(
        activity.deadline(),
        Some((start + seconds(125), Overdue::Head))
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_taken_has_a_deadline_however_many_others_are() {
    let start = Instant::now();
    let activity = Arc::new(Activity::new(DEADLINES, start));
    let (first, second) = (activity.begin(), activity.begin());
    first.answered(0);
    tokio::time::advance(seconds(20)).await;
    second.answered(ANSWER_BYTES_PER_SECOND * 5);
    assert_eq!(
        activity.deadline(),
        Some((start + seconds(30), Overdue::Answer))
    );
    drop(first);
    assert_eq!(
        activity.deadline(),
        Some((start + seconds(55), Overdue::Answer))
    );
    drop(second);
    assert_eq!(
        activity.deadline(),
        Some((start + seconds(95), Overdue::Idle))
    );
}

#[tokio::test(start_paused = true)]
async fn an_eviction_waits_for_a_request_that_came_first() {
    let start = Instant::now();
    let activity = Arc::new(Activity::new(DEADLINES, start));
    assert_eq!(activity.waits(), Some((start, false)));
    let request = activity.begin();
    activity.evict();
    assert_eq!(activity.deadline(), None);
    drop(request);
    assert_eq!(activity.deadline(), Some((start, Overdue::Evicted)));
    assert_eq!(activity.waits(), None, "it is not asked twice");
}
