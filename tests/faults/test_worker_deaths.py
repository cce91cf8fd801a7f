"""A worker dies or is told to end at every moment of a job: F1 to F6."""

import oracle
from stack import Stack


def test_f1_a_worker_killed_during_inference_is_followed_by_a_second_attempt(any_stack: Stack) -> None:
    any_stack.gateway()
    first = any_stack.worker()
    request_id = any_stack.submit("held key", seed=11)
    any_stack.wait_drawing([request_id])
    first.kill()
    any_stack.release()
    any_stack.worker()
    rows = oracle.check(any_stack)
    assert rows[request_id].attempt == 2
    assert len(any_stack.draws(request_id)) == 2
