"""The room page: a host includes ``zndraw_joblib.pages.urls`` under any prefix."""
