"""Whatever of huggingface_hub is replaced or used though it is private."""

from __future__ import annotations

from gptoss_bento.patching import Patch, PrivateUse

DOWNLOAD = Patch(
    "huggingface_hub.file_download:http_get",
    "A download that a reset or a kill ended begins again: the library's unfinished file has a random name.",
    "None: `resume_download` was removed from the library.",
    "tests/unit/bento/test_bake.py::test_transfer_that_is_interrupted_resumes",
)

PATCHES: tuple[Patch, ...] = (DOWNLOAD,)

PRIVATE_USES: tuple[PrivateUse, ...] = (
    PrivateUse(
        "huggingface_hub.utils:WeakFileLock",
        "called",
        "Clean-up takes the library's lock of a file before it removes what is incomplete (cache_cleanup.py).",
        "tests/unit/artifacts/test_cache_cleanup.py::test_incomplete_download_of_a_living_process_stays",
    ),
    PrivateUse(
        "huggingface_hub._snapshot_download:snapshot_download",
        "called",
        "Public; the name of its bar of bytes, which the progress report needs (download_progress.py), is not.",
        "tests/unit/artifacts/test_download_progress.py::test_progress_of_all_files_together_is_reported_and_logged",
    ),
    PrivateUse(
        "huggingface_hub.file_download:repo_folder_name",
        "called",
        "Where the cache keeps a model (doctor/hub.py).",
        "tests/unit/doctor/test_hub.py::test_model_in_the_cache_is_found_there",
    ),
    PrivateUse(
        "huggingface_hub.utils._paths:filter_repo_objects",
        "called",
        "Which files of a model would be fetched (doctor/hub.py).",
        "tests/unit/doctor/test_hub.py::test_public_model_is_weighed_without_its_duplicates",
    ),
)
