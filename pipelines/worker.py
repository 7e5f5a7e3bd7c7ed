"""A worker process of the local runner: Beam's own, but silent, as failures reach the launcher."""

import logging
import os
import signal
import sys

if __name__ == "__main__":
    # An interrupt from the keyboard reaches the launcher as well, and ends this process with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger().setLevel(logging.CRITICAL)
    from apache_beam.runners.worker import sdk_worker_main

    # Beam's log starts anew here, and a lost launcher makes each of its threads print a traceback.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    sdk_worker_main.main(sys.argv)
