"""What tests of data sets share."""

import pytest

from depthtokens.errors import DataError


@pytest.fixture
def message():
    """A function that calls another, which must raise an error of one line, and gives that line."""

    def one_line(action, kind=DataError):
        with pytest.raises(kind) as caught:
            action()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return one_line
