"""Jobs and VMs are found by when they ended, to be forgotten in time.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_index("ix_jobs_completed_ms", "jobs", ["completed_ms"], unique=False)
    op.create_index("ix_vms_ended_ms", "vms", ["ended_ms"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_vms_ended_ms", table_name="vms")
    op.drop_index("ix_jobs_completed_ms", table_name="jobs")
