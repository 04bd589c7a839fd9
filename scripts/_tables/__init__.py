"""What makes each table of measured figures from the JSON that a command wrote.

Each module names its FILE, and has TABLES: functions of the file's content by the table's name.
"""
