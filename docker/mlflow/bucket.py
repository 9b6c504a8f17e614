"""Make the bucket of MLflow's artefacts, unless it is there. Address and keys come from the usual AWS variables."""

import sys

import boto3
from botocore.exceptions import ClientError


def main(bucket: str) -> None:
    """Make a bucket in the store of ``AWS_ENDPOINT_URL``."""
    store = boto3.client("s3")
    try:
        store.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] not in {"404", "NoSuchBucket"}:
            raise
        store.create_bucket(Bucket=bucket)


if __name__ == "__main__":
    main(sys.argv[1])
