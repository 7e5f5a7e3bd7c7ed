"""A worker process of the local runner: Beam's own, but silent, as failures reach the launcher."""

import logging
import os
import signal
import sys
import threading
import time


def _end_with(launcher: int) -> None:
    """Ends this process when the launcher has gone, however that came about."""
    while os.getppid() == launcher:
        time.sleep(0.2)
    os._exit(1)


if __name__ == "__main__":
    # An interrupt from the keyboard reaches the launcher as well, and ends this process with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=[int(sys.argv.pop())], daemon=True).start()
    logging.getLogger().setLevel(logging.CRITICAL)
    from apache_beam.runners.worker import sdk_worker_main

    # Beam's log starts anew here, and a lost launcher makes each of its threads print a traceback.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    sdk_worker_main.main(sys.argv)
